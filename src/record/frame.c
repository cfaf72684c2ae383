/* Encoding and strict decoding of what workers and the recorder say to each other. No state, no
 * input or output. */
#include "sallyport/record/frame.h"

#include <string.h>

#include "sallyport/record/chain.h"

#define FLAG_FOLD 1u

struct batch_head {
    uint64_t epoch, number;
    uint32_t durability, zero;
};
struct item_head {
    uint16_t flags, event, key_len, zero;
    uint32_t draft_len;
};

bool
record_batch_begin(struct buf *out, const struct record_batch *batch)
{
    struct batch_head h = {batch->epoch, batch->number, batch->durability, 0};
    return buf_append(out, &h, sizeof h);
}

size_t
record_item_size(const struct record_item *item)
{
    return sizeof(struct item_head) + item->key.len + item->draft.len;
}

bool
record_batch_add(struct buf *out, const struct record_item *item)
{
    if (item->key.len > RECORD_KEY_MAX || item->draft.len > RECORD_LINE_MAX ||
        buf_room(out) < record_item_size(item))
        return false;
    struct item_head h = {.flags = item->fold ? FLAG_FOLD : 0,
                          .event = (uint16_t)item->event,
                          .key_len = (uint16_t)item->key.len,
                          .draft_len = (uint32_t)item->draft.len};
    return buf_append(out, &h, sizeof h) && buf_append_slice(out, item->key) &&
           buf_append_slice(out, item->draft);
}

bool
record_item_next(struct slice *items, struct record_item *ret)
{
    struct item_head h;
    if (items->len < sizeof h)
        return false;
    memcpy(&h, items->ptr, sizeof h);
    size_t len = (size_t)h.key_len + h.draft_len;
    if (h.key_len > RECORD_KEY_MAX || h.draft_len > RECORD_LINE_MAX || len > items->len - sizeof h)
        return false;
    const char *at = items->ptr + sizeof h;
    *ret = (struct record_item){.fold = h.flags == FLAG_FOLD,
                                .event = (enum record_event)h.event,
                                .key = slice_of(at, h.key_len),
                                .draft = slice_of(at + h.key_len, h.draft_len)};
    *items = slice_of(at + len, items->len - sizeof h - len);
    return h.flags <= FLAG_FOLD && h.zero == 0;
}

/* What a worker may report; the rest is the recorder's and the supervisor's own. */
static bool
event_is_a_workers(enum record_event e)
{
    return e == RECORD_RESOLVE || e == RECORD_DECISION || e == RECORD_CLOSE ||
           e == RECORD_CHALLENGE || e == RECORD_BYPASS;
}

bool
record_batch_check(struct slice frame, struct record_batch *ret, struct slice *ret_items)
{
    struct batch_head h;
    if (frame.len < sizeof h)
        return false;
    memcpy(&h, frame.ptr, sizeof h);
    if (h.number == 0 || h.durability < 1 || h.durability > 3 || h.zero != 0)
        return false;
    struct slice items = slice_of(frame.ptr + sizeof h, frame.len - sizeof h);
    *ret = (struct record_batch){h.epoch, h.number, (uint8_t)h.durability};
    *ret_items = items;
    while (items.len) {
        struct record_item item;
        if (!record_item_next(&items, &item) || !event_is_a_workers(item.event))
            return false;
    }
    return true;
}

bool
record_item_is_true(const struct record_item *item)
{
    unsigned in_draft, in_key;
    return record_draft_event(item->draft) == item->event && chain_draft_is_sound(item->draft, &in_draft) && in_draft == 1 &&
           chain_members_are_sound(item->key, &in_key) && in_key == 0;
}

static struct slice
after(struct slice s, size_t n)
{
    return slice_of(s.ptr + n, s.len - n);
}

bool
record_line_draft(struct slice line, struct slice *ret_ts, struct slice *ret_rest)
{
    /* {"ts":"…","seq":N,…,"prev":"64","hash":"64"} */
    static const char seq[] = ",\"seq\":";
    const size_t tail = sizeof ",\"prev\":\"\"" - 1 + 64 + sizeof ",\"hash\":\"\"" - 1 + 64 + 1;
    if (line.len < 1 + RECORD_TS_LEN + sizeof seq + tail || line.ptr[0] != '{')
        return false;
    *ret_ts = slice_of(line.ptr + 1, RECORD_TS_LEN);
    struct slice rest = slice_of(line.ptr + 1 + RECORD_TS_LEN, line.len - 1 - RECORD_TS_LEN - tail);
    if (!slice_starts_with(rest, seq))
        return false;
    rest = after(rest, sizeof seq - 1);
    while (rest.len && rest.ptr[0] >= '0' && rest.ptr[0] <= '9')
        rest = after(rest, 1);
    *ret_rest = rest;
    return true;
}
