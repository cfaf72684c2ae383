/* What a taken worker can send to the recorder: whatever passes as a batch is refused as a record, or becomes one line that
 * verifies, has the next number, is of an event that workers may report, and gives its draft back. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sallyport/record/chain.h"
#include "sallyport/record/frame.h"

static void
append(struct chain *c, struct buf *out, const struct record_item *item)
{
    struct chain before = *c;
    struct slice ts, rest;
    buf_clear(out);
    if (!record_item_is_true(item) || !chain_append(c, out, item->draft)) {
        if (c->next_seq != before.next_seq || buf_len(out) != 0)
            abort();
        return;
    }
    struct slice line = slice_of(buf_slice(out).ptr, buf_len(out) - 1);
    if (buf_slice(out).ptr[line.len] != '\n' || memchr(line.ptr, '\n', line.len))
        abort();
    if (chain_check_line(&before, line, false) != CHAIN_OK || before.next_seq != c->next_seq ||
        strcmp(before.prev, c->prev) != 0)
        abort();
    if (record_line_event(line) != item->event || !record_line_draft(line, &ts, &rest) ||
        ts.len + rest.len != item->draft.len)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct chain c;
    struct buf out;
    struct record_batch batch;
    struct record_item item;
    struct slice items;
    chain_init(&c);
    c.next_seq = 41;
    buf_init(&out, RECORD_LINE_MAX + 1);
    if (record_batch_check(slice_of(data, size), &batch, &items)) {
        while (record_item_next(&items, &item))
            append(&c, &out, &item);
    }
    /* Mutation rarely gets the lengths right: the bytes as a draft, too. */
    item = (struct record_item){.event = RECORD_DECISION, .draft = slice_of(data, size < RECORD_LINE_MAX ? size : RECORD_LINE_MAX)};
    append(&c, &out, &item);
    buf_done(&out);
    return 0;
}
