/* Slices: comparison, splitting, trimming and strict numbers. */
#include "unit/test.h"

#include "sallyport/base/slice.h"

TEST(equal_nocase_folds_ascii_only)
{
    CHECK(slice_equal_nocase(slice_str("HoSt"), slice_str("hOsT")));
    CHECK(!slice_equal_nocase(slice_str("host"), slice_str("hos")));
    CHECK(!slice_equal_nocase(slice_str("\xc4"), slice_str("\xe4")));
    CHECK(!slice_equal_nocase(slice_str("["), slice_str("{")));
    CHECK(!slice_equal_nocase(slice_str("@"), slice_str("`")));
    CHECK(slice_equal_nocase(slice_of(NULL, 0), slice_str("")));
}

TEST(split_takes_the_first_byte)
{
    struct slice rest, head = slice_split(slice_str("a:b:c"), ':', &rest);
    CHECK(slice_is(head, "a"));
    CHECK(slice_is(rest, "b:c"));
    head = slice_split(slice_str("abc"), ':', &rest);
    CHECK(slice_is(head, "abc"));
    CHECK(rest.ptr == NULL);
    head = slice_split(slice_str("abc:"), ':', &rest);
    CHECK(slice_is(head, "abc"));
    CHECK(rest.ptr != NULL && rest.len == 0);
    head = slice_split(slice_of(NULL, 0), ':', &rest);
    CHECK(head.len == 0 && rest.ptr == NULL);
}

TEST(trim_strips_only_space_and_tab)
{
    CHECK(slice_is(slice_trim_ows(slice_str(" \t a b\t ")), "a b"));
    CHECK(slice_is(slice_trim_ows(slice_str("\n a")), "\n a"));
    CHECK(slice_trim_ows(slice_str(" \t ")).len == 0);
}

TEST(parse_uint_is_strict)
{
    static const char *const bad[] = {
        "", "+1", "-1", " 1", "1 ", "01", "00", "0x1", "1e3", "65536", "99999999999999999999999"};
    unsigned long long n = 7;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_THAT(!slice_parse_uint(slice_str(bad[i]), 65535, &n) && n == 7, "%s", bad[i]);
    CHECK(!slice_parse_uint(slice_of("1\0", 2), 65535, &n));
    CHECK(slice_parse_uint(slice_str("0"), 65535, &n) && n == 0);
    CHECK(slice_parse_uint(slice_str("65535"), 65535, &n) && n == 65535);
    CHECK(slice_parse_uint(slice_str("18446744073709551615"), ~0ull, &n) && n == ~0ull);
    CHECK(!slice_parse_uint(slice_str("18446744073709551616"), ~0ull, &n));
    CHECK(!slice_parse_uint(slice_str("7"), 5, &n));
    CHECK(slice_parse_uint(slice_str("5"), 5, &n) && n == 5);
}

TEST(prefix_and_byte)
{
    CHECK(slice_starts_with(slice_str("abc"), "ab"));
    CHECK(slice_starts_with(slice_of(NULL, 0), ""));
    CHECK(!slice_starts_with(slice_str("a"), "ab"));
    CHECK(slice_has_byte(slice_of("a\0b", 3), '\0'));
    CHECK(!slice_has_byte(slice_of(NULL, 0), 'a'));
}
