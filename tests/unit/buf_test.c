/* The bounded buffer: caps are hard, nothing is cut, consumed room is used again. */
#include "unit/test.h"

#include "sallyport/base/buf.h"

TEST(append_stops_at_the_cap)
{
    struct buf b;
    buf_init(&b, 10);
    CHECK(buf_append_str(&b, "12345678"));
    CHECK(!b.overflow);
    CHECK(!buf_append_str(&b, "abc"));
    CHECK(b.overflow);
    CHECK(slice_is(buf_slice(&b), "12345678"));
    CHECK(buf_append_str(&b, "90"));
    CHECK(buf_room(&b) == 0);
    buf_clear(&b);
    CHECK(!b.overflow && buf_len(&b) == 0);
    buf_done(&b);
}

TEST(consumed_room_is_used_again)
{
    struct buf b;
    buf_init(&b, 300);
    char block[100];
    for (int i = 0; i < 1000; i++) {
        memset(block, 'a' + i % 26, sizeof block);
        CHECK(buf_append(&b, block, sizeof block));
        if (buf_len(&b) == 300) {
            CHECK(buf_slice(&b).ptr[0] == 'a' + (i - 2) % 26);
            buf_consume(&b, 100);
        }
    }
    CHECK(b.size <= 300);
    buf_done(&b);
}

TEST(printf_counts_no_terminator)
{
    struct buf b;
    buf_init(&b, 4);
    CHECK(buf_printf(&b, "%d", 1234));
    CHECK(slice_is(buf_slice(&b), "1234"));
    CHECK(!buf_printf(&b, "%d", 5));
    CHECK(b.overflow);
    buf_done(&b);
    buf_init(&b, 100000);
    CHECK(buf_printf(&b, "%0600d", 1));
    CHECK(buf_len(&b) == 600);
    buf_done(&b);
}

TEST(reserve_and_commit)
{
    struct buf b;
    buf_init(&b, 1000);
    CHECK(buf_reserve(&b, 1001) == NULL);
    char *at = buf_reserve(&b, 1000);
    CHECK(at != NULL);
    memset(at, 'x', 1000);
    buf_commit(&b, 10);
    CHECK(buf_len(&b) == 10);
    buf_consume(&b, 10);
    buf_release(&b);
    CHECK(b.data == NULL);
    CHECK(buf_append_str(&b, "again"));
    buf_release(&b);
    CHECK(b.data != NULL);
    buf_done(&b);
}

TEST(a_cap_of_zero_or_of_everything)
{
    struct buf b;
    buf_init(&b, 0);
    CHECK(!buf_append_str(&b, "x"));
    CHECK(buf_append(&b, NULL, 0));
    buf_done(&b);
    buf_init(&b, (size_t)-1);
    CHECK(buf_append_str(&b, "x"));
    CHECK(slice_is(buf_slice(&b), "x"));
    buf_done(&b);
}

TEST(numbers_are_appended_whole_or_not_at_all)
{
    struct buf b;
    buf_init(&b, 22);
    CHECK(buf_append_uint(&b, 0) && buf_append_uint(&b, UINT64_MAX) && buf_append_uint(&b, 7));
    CHECK(slice_is(buf_slice(&b), "0184467440737095516157"));
    CHECK(!buf_append_uint(&b, 1) && b.overflow && buf_len(&b) == 22);
    buf_done(&b);
}
