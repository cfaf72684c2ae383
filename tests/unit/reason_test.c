/* The list of reasons: complete, without "ok" by accident, and in agreement with itself. */
#include "unit/test.h"

#include "sallyport/base/reason.h"

TEST(zero_is_never_ok)
{
    CHECK(REASON_UNDECIDED == 0);
    CHECK_STR(reason_text(REASON_UNDECIDED), "internal");
    CHECK(reason_status(REASON_UNDECIDED) == 500);
    CHECK(reason_status((enum reason)9999) == 500);
    CHECK(reason_from_text(slice_str("nonsense")) == REASON_UNDECIDED);
    CHECK(reason_from_text(slice_str("")) == REASON_UNDECIDED);
    CHECK(reason_from_text(slice_of("ok\0", 3)) == REASON_UNDECIDED);
    CHECK(reason_from_text(slice_str("ok")) == REASON_OK);
}

TEST(every_row_is_whole)
{
    for (unsigned i = REASON_OK + 1; i < REASON_COUNT; i++) {
        enum reason r = (enum reason)i;
        int status = reason_status(r);
        CHECK_THAT(status == 0 || (status >= 400 && status < 600), "%s %d", reason_text(r), status);
        CHECK(reason_text(r)[0] && reason_proxy_error(r) && reason_meaning(r)[0] &&
              reason_advice(r)[0]);
        CHECK_THAT(strspn(reason_text(r), "abcdefghijklmnopqrstuvwxyz_") == strlen(reason_text(r)),
                   "%s", reason_text(r));
        enum reason back = reason_from_text(slice_str(reason_text(r)));
        CHECK_STR(reason_text(back), reason_text(r));
        CHECK(back <= r);
    }
}

TEST(judgements_and_failures)
{
    static const enum reason denials[] = {
        REASON_TOKEN_MISSING,    REASON_TOKEN_SIGNATURE,     REASON_POLICY_UNKNOWN,
        REASON_HOST_NOT_ALLOWED, REASON_ADDRESS_NOT_ALLOWED, REASON_SNI_MISMATCH,
        REASON_NOT_TLS,          REASON_HOST_MISMATCH,       REASON_REQUEST_MALFORMED,
        REASON_METHOD_UNKNOWN,   REASON_CODING_UNSUPPORTED,  REASON_LIMIT_TUNNELS};
    static const enum reason failures[] = {
        REASON_UNDECIDED,        REASON_OK,           REASON_DNS_FAILURE, REASON_UPSTREAM_REFUSED,
        REASON_UPSTREAM_TIMEOUT, REASON_UPSTREAM_TLS, REASON_OVERLOADED,  REASON_RECORD_UNAVAILABLE,
        REASON_SHUTTING_DOWN,    REASON_INTERNAL};
    for (size_t i = 0; i < sizeof denials / sizeof denials[0]; i++)
        CHECK_THAT(reason_is_denial(denials[i]), "%s", reason_text(denials[i]));
    for (size_t i = 0; i < sizeof failures / sizeof failures[0]; i++)
        CHECK_THAT(!reason_is_denial(failures[i]), "%s", reason_text(failures[i]));
}

TEST(shared_texts_give_the_first)
{
    CHECK(reason_from_text(slice_str("method_not_allowed")) == REASON_METHOD_NOT_ALLOWED);
    CHECK(reason_from_text(slice_str("request_malformed")) == REASON_REQUEST_MALFORMED);
}
