/* The recorder: frames, folding, the file writer, and the whole process against workers and a supervisor that are played
 * here: restart without loss or doubles, workers that lie, a file that is full or tampered with. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sallyport/base/file.h"
#include "sallyport/base/mem.h"
#include "sallyport/net/channel.h"
#include "sallyport/process/bundle.h"
#include "sallyport/process/control.h"
#include "sallyport/process/fold.h"
#include "sallyport/process/logwriter.h"
#include "sallyport/process/recordfile.h"
#include "sallyport/process/role.h"
#include "sallyport/proxy/journal.h"
#include "sallyport/record/frame.h"
#include "sallyport/record/verify.h"
#include "unit/test.h"

/* ---- frames ---- */

static struct slice
draft_of(int n, char text[256])
{
    int len = snprintf(text, 256, "\"ts\":\"2026-11-20T18:08:24.%06dZ\",\"event\":\"decision\",\"id\":\"id-%d\"", n % 1000000, n);
    return slice_of(text, (size_t)len);
}

static void
make_batch(struct buf *b, uint64_t epoch, uint64_t number, int first, int count)
{
    char text[256];
    struct record_batch head = {epoch, number, DURABILITY_WRITTEN};
    buf_clear(b);
    CHECK(record_batch_begin(b, &head));
    for (int i = 0; i < count; i++) {
        struct record_item item = {.event = RECORD_DECISION, .draft = draft_of(first + i, text)};
        CHECK(record_batch_add(b, &item));
    }
}

TEST(batches_come_back_as_they_were)
{
    struct buf b;
    struct record_batch head = {7, 9, 2}, got;
    struct record_item items[2] = {{.event = RECORD_CLOSE, .draft = slice_str("\"ts\":1")},
                                   {.fold = true, .event = RECORD_DECISION, .key = slice_str("\"host\":\"x\""), .draft = slice_str("\"ts\":2")}};
    struct record_item item;
    struct slice rest;
    buf_init(&b, CHANNEL_FRAME_MAX);
    CHECK(record_batch_begin(&b, &head) && record_batch_add(&b, &items[0]) && record_batch_add(&b, &items[1]));
    CHECK(record_batch_check(buf_slice(&b), &got, &rest));
    CHECK(got.epoch == 7 && got.number == 9 && got.durability == 2);
    CHECK(record_item_next(&rest, &item) && !item.fold && item.event == RECORD_CLOSE && slice_is(item.draft, "\"ts\":1"));
    CHECK(record_item_next(&rest, &item) && item.fold && slice_is(item.key, "\"host\":\"x\"") && slice_is(item.draft, "\"ts\":2"));
    CHECK(!record_item_next(&rest, &item));
    /* Cut anywhere but between two items, it is none. */
    size_t whole = 0, len = buf_len(&b);
    for (size_t cut = 0; cut < len; cut++)
        whole += record_batch_check(slice_of(buf_slice(&b).ptr, cut), &got, &rest);
    CHECK(whole == 2);
    buf_done(&b);
}

TEST(lengths_that_lie_are_refused)
{
    struct buf b;
    struct record_batch got;
    struct slice rest;
    char copy[512];
    buf_init(&b, CHANNEL_FRAME_MAX);
    make_batch(&b, 1, 1, 1, 1);
    size_t len = buf_len(&b);
    /* Behind the head of the batch: flags, event, key length, zero, draft length. */
    for (size_t at = 24; at + 2 <= 36; at += 2) {
        memcpy(copy, buf_slice(&b).ptr, len);
        memset(copy + at, 0xff, 2);
        CHECK_THAT(!record_batch_check(slice_of(copy, len), &got, &rest), "at %zu", at);
    }
    /* Events that are not a worker's. */
    for (uint16_t e = 0; e < 20; e++) {
        memcpy(copy, buf_slice(&b).ptr, len);
        memcpy(copy + 26, &e, sizeof e);
        bool fine = e == RECORD_RESOLVE || e == RECORD_DECISION || e == RECORD_CLOSE || e == RECORD_CHALLENGE || e == RECORD_BYPASS;
        CHECK_THAT(record_batch_check(slice_of(copy, len), &got, &rest) == fine, "event %u", e);
    }
    buf_done(&b);
}

#define TS "\"ts\":\"2026-11-20T18:08:24.000000Z\""

TEST(an_item_is_of_the_event_that_it_says)
{
    static const struct { enum record_event event; const char *key, *draft; bool fine; } cases[] = {
        {RECORD_DECISION, "", TS ",\"event\":\"decision\",\"id\":\"1\"", true},
        {RECORD_DECISION, "\"host\":\"h\"", TS ",\"event\":\"decision\"", true},
        {RECORD_DECISION, "", TS ",\"class_uid\":4002,\"unmapped\":{\"event\":\"decision\"}", true},
        {RECORD_DECISION, "", TS ",\"event\":\"decision\",\"path\":\"\\\",\\\"event\\\":\\\"stop\"", true},
        {RECORD_DECISION, "", TS ",\"event\":\"checkpoint\"", false},
        {RECORD_DECISION, "", TS ",\"event\":\"stop\"", false},
        {RECORD_DECISION, "", TS ",\"event\":\"close\"", false},
        {RECORD_DECISION, "", TS ",\"event\":\"decision\",\"event\":\"stop\"", false},
        {RECORD_DECISION, "", TS ",\"event\":\"decision\",\"ev\\u0065nt\":\"stop\"", false},
        {RECORD_DECISION, "", TS ",\"event\":\"decision\",\"event\" :\"stop\"", false},
        {RECORD_DECISION, "", TS ",\"event\":\"decision\",\"unmapped\":{\"event\":\"stop\"}", false},
        {RECORD_DECISION, "", TS ",\"id\":\"1\"", false},
        {RECORD_DECISION, "", TS, false},
        {RECORD_DECISION, "", "", false},
        {RECORD_DECISION, "\"event\":\"stop\"", TS ",\"event\":\"decision\"", false},
        {RECORD_DECISION, "\"a\":1}", TS ",\"event\":\"decision\"", false},
        {RECORD_DECISION, "\"seq\":1", TS ",\"event\":\"decision\"", false},
        {RECORD_DECISION, "\"host\":\"h", TS ",\"event\":\"decision\"", false},
        /* For whoever counts quotes the event is another one, or none. */
        {RECORD_DECISION, "", TS ",\"a\":\"2,\"unmapped\":{\"event\":\"decision\",\"event\":\"checkpoint\"", false},
        {RECORD_DECISION, "", TS ",\"a\":-\"event\":\"2,\"unmapped\":{\"event\":\"decision", false},
        {RECORD_DECISION, "", TS ",\"a\":true,\"b\":null,\"c\":[-1.5e+3,false],\"unmapped\":{\"event\":\"decision\"}", true},
        {RECORD_DECISION, "", TS ",\"event\":\"decision\",\"a\":undefined", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct record_item item = {.event = cases[i].event, .key = slice_str(cases[i].key), .draft = slice_str(cases[i].draft)};
        CHECK_THAT(record_item_is_true(&item) == cases[i].fine, "%s %s", cases[i].key, cases[i].draft);
    }
}

TEST(a_line_gives_its_draft_back)
{
    char text[256];
    struct chain c;
    struct buf b;
    struct slice ts, rest;
    chain_init(&c);
    c.next_seq = 12345678;
    buf_init(&b, 4096);
    struct slice draft = draft_of(5, text);
    CHECK(chain_append(&c, &b, draft));
    struct slice line = slice_of(buf_slice(&b).ptr, buf_len(&b) - 1);
    CHECK(record_line_draft(line, &ts, &rest));
    CHECK(ts.len + rest.len == draft.len && memcmp(ts.ptr, draft.ptr, ts.len) == 0 && memcmp(rest.ptr, draft.ptr + ts.len, rest.len) == 0);
    CHECK(!record_line_draft(slice_str("{}"), &ts, &rest));
    buf_done(&b);
}

/* ---- folding ---- */

struct folded { int calls; uint64_t count; char key[600]; };

static void
on_folded(void *ctx, const struct fold_entry *e)
{
    struct folded *f = ctx;
    f->calls++;
    f->count += e->folded;
    snprintf(f->key, sizeof f->key, "%.*s", (int)e->key_len, e->key);
}

TEST(ten_a_minute_singly_the_rest_counted)
{
    struct fold_table *t = mem_zalloc(sizeof *t);
    struct folded f = {0};
    int written = 0;
    for (int i = 0; i < 100; i++)
        written += fold_note(t, RECORD_DECISION, slice_str("\"host\":\"a\""), 1000000 + i);
    CHECK(written == FOLD_SINGLY);
    CHECK(fold_note(t, RECORD_DECISION, slice_str("\"host\":\"b\""), 1000000));
    CHECK(fold_note(t, RECORD_CHALLENGE, slice_str("\"host\":\"a\""), 1000000));
    fold_expire(t, 1000000 + FOLD_WINDOW_US - 1, false, on_folded, &f);
    CHECK(f.calls == 0);
    fold_expire(t, 1000000 + FOLD_WINDOW_US, false, on_folded, &f);
    CHECK(f.calls == 1 && f.count == 90);
    CHECK_STR(f.key, "\"host\":\"a\"");
    CHECK(fold_note(t, RECORD_DECISION, slice_str("\"host\":\"a\""), 1000000 + FOLD_WINDOW_US));
    free(t);
}

TEST(many_keys_end_in_one_common_count)
{
    struct fold_table *t = mem_zalloc(sizeof *t);
    struct folded f = {0};
    char key[64];
    uint64_t written = 0;
    const int keys = 100000;
    for (int i = 0; i < keys; i++) {
        snprintf(key, sizeof key, "\"host\":\"h%d\"", i);
        written += fold_note(t, RECORD_DECISION, slice_str(key), 5);
    }
    CHECK(written <= FOLD_KEYS_MAX && written > FOLD_KEYS_MAX / 2);
    fold_expire(t, 6, true, on_folded, &f);
    CHECK(f.calls == 1 && f.count == (uint64_t)keys - written);
    free(t);
}

TEST(a_refusals_close_record_is_not_counted_again)
{
    struct fold_table *t = mem_zalloc(sizeof *t);
    struct folded f = {0};
    for (int i = 0; i < 100; i++)
        fold_note(t, RECORD_CLOSE, slice_str("k"), 5);
    fold_expire(t, 6, true, on_folded, &f);
    CHECK(f.calls == 0);
    free(t);
}

TEST(a_long_key_is_folded_without_its_text)
{
    struct fold_table *t = mem_zalloc(sizeof *t);
    struct folded f = {0};
    static char key[RECORD_KEY_MAX];
    memset(key, 'k', sizeof key);
    for (int i = 0; i < 20; i++)
        fold_note(t, RECORD_DECISION, slice_of(key, sizeof key), 5);
    fold_expire(t, 6, true, on_folded, &f);
    CHECK(f.count == 10 && f.key[0] == '\0');
    /* What a recorder that died in the middle left is not believed. */
    fold_note(t, RECORD_DECISION, slice_str("k"), 5);
    for (size_t i = 0; i < FOLD_KEYS_MAX; i++)
        t->entries[i].key_len = 0xffffffff, t->entries[i].folded = t->begun_us[i] != 0;
    fold_expire(t, 6, true, on_folded, &f);
    CHECK(f.key[0] == '\0');
    free(t);
}

/* ---- files ---- */

static char folder[64];

static char *
in_folder(const char *name)
{
    return mem_printf("%s/%s", folder, name);
}

static void
make_folder(void)
{
    strcpy(folder, "/tmp/sallyport-record-XXXXXX");
    CHECK(mkdtemp(folder) != NULL);
}

static void
remove_folder(void)
{
    cleanup_free char *command = mem_printf("rm -rf %s", folder);
    CHECK(system(command) == 0);
}

static void
verify_text(struct verify *v, const char *path, size_t *ret_lines)
{
    FILE *f = fopen(path, "r");
    CHECK_THAT(f != NULL, "%s", path);
    if (!f)
        return;
    char *line = NULL;
    size_t size = 0;
    verify_file(v, path);
    for (ssize_t n; (n = getline(&line, &size, f)) > 0; ++*ret_lines) {
        bool whole = line[n - 1] == '\n';
        verify_line(v, slice_of(line, (size_t)n - whole), whole);
    }
    free(line);
    fclose(f);
}

static struct verify_result
verify_all(const char *const *paths, size_t *ret_lines)
{
    struct verify_options o = {0};
    struct verify_result r;
    struct verify *v = verify_new(&o);
    *ret_lines = 0;
    for (; *paths; paths++)
        verify_text(v, *paths, ret_lines);
    verify_finish(v, &r);
    verify_free(v);
    return r;
}

static int
count_text(const char *path, const char *text)
{
    char *bytes;
    size_t len;
    struct err err = {0};
    int n = 0;
    if (file_read(path, 64u << 20, FILE_ANY, &bytes, &len, &err) < 0)
        return -1;
    for (const char *at = bytes; (at = strstr(at, text)); at++)
        n++;
    free(bytes);
    return n;
}

TEST(a_torn_end_is_set_aside)
{
    struct record_file f;
    struct err err = {0};
    char text[256];
    make_folder();
    cleanup_free char *path = in_folder("d.jsonl");
    struct chain c;
    struct buf b;
    chain_init(&c);
    buf_init(&b, 65536);
    chain_append(&c, &b, draft_of(1, text));
    chain_append(&c, &b, draft_of(2, text));
    size_t whole = buf_len(&b);
    chain_append(&c, &b, draft_of(3, text));
    for (size_t cut = whole; cut < buf_len(&b); cut += 7) {
        unlink(path);
        cleanup_free char *torn = in_folder("d.jsonl.torn-000000000003");
        unlink(torn);
        int fd = open(path, O_WRONLY | O_CREAT, 0600);
        CHECK(fd >= 0 && fd_write_all(fd, slice_of(buf_slice(&b).ptr, cut)) == 0);
        close(fd);
        CHECK_THAT(recordfile_open(path, &f, &err) == 0, "%s", err.text);
        CHECK(f.torn_bytes == cut - whole);
        struct stat st;
        CHECK(fstat(f.fd, &st) == 0 && (size_t)st.st_size == whole);
        CHECK(cut == whole || (stat(torn, &st) == 0 && (size_t)st.st_size == cut - whole));
        recordfile_close(&f);
    }
    buf_done(&b);
    remove_folder();
}

TEST(files_that_are_none_of_ours_are_refused)
{
    struct record_file f, g;
    struct err err = {0};
    make_folder();
    cleanup_free char *path = in_folder("d.jsonl"), *link = in_folder("link"), *fifo = in_folder("fifo"), *text = in_folder("text");
    CHECK(recordfile_open(path, &f, &err) == 0);
    CHECK(recordfile_open(path, &g, &err) < 0 && strstr(err.text, "in use"));
    CHECK(symlink(path, link) == 0 && recordfile_open(link, &g, &err) < 0);
    CHECK(mkfifo(fifo, 0600) == 0 && recordfile_open(fifo, &g, &err) < 0 && strstr(err.text, "regular"));
    int fd = open(text, O_WRONLY | O_CREAT, 0600);
    for (int i = 0; i < 3000; i++)
        CHECK(write(fd, "no newline anywhere in this file, ", 34) == 34);
    close(fd);
    CHECK(recordfile_open(text, &g, &err) < 0 && strstr(err.text, "not a decision log"));
    struct log_writer w;
    logwriter_init(&w);
    fd = open(text, O_RDWR | O_TRUNC);
    CHECK(write(fd, "{\"ts\":1}\n", 9) == 9);
    CHECK(logwriter_open(&w, fd, -1, &err) < 0 && strstr(err.text, "not a record"));
    logwriter_done(&w);
    recordfile_close(&f);
    remove_folder();
}

TEST(replacing_never_overwrites)
{
    struct record_file f;
    struct err err = {0};
    make_folder();
    cleanup_free char *path = in_folder("d.jsonl"), *rotated = in_folder("d.jsonl.000000000001"), *other = in_folder("other");
    CHECK(recordfile_open(path, &f, &err) == 0 && recordfile_in_place(&f));
    CHECK(recordfile_before(path) == -1);
    CHECK(recordfile_replace(&f, WANT_ROTATED, 1, &err) == 0 && access(rotated, F_OK) == 0 && recordfile_in_place(&f));
    int before = recordfile_before(path);
    CHECK(before >= 0);
    close(before);
    CHECK(recordfile_replace(&f, WANT_ROTATED, 1, &err) < 0); /* the name is taken */
    CHECK(recordfile_in_place(&f));
    CHECK(rename(path, other) == 0 && !recordfile_in_place(&f));
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    CHECK(write(fd, "x", 1) == 1);
    close(fd);
    CHECK(recordfile_replace(&f, WANT_LOST, 1, &err) < 0 && strstr(err.text, "somebody else"));
    CHECK(unlink(path) == 0 && recordfile_replace(&f, WANT_LOST, 1, &err) == 0 && recordfile_in_place(&f));
    recordfile_close(&f);
    remove_folder();
}

TEST(only_whole_lines_stay_when_the_disk_is_full)
{
    char text[256];
    struct err err = {0};
    struct log_writer w;
    bool room;
    struct rlimit limit, before;
    make_folder();
    cleanup_free char *path = in_folder("d.jsonl");
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    logwriter_init(&w);
    CHECK(logwriter_open(&w, open(path, O_RDWR | O_CREAT | O_APPEND, 0600), -1, &err) == 0);
    for (int i = 0; i < 10; i++)
        CHECK(logwriter_add(&w, draft_of(i, text), &room));
    size_t all = buf_len(&w.pending), line = all / 10;
    /* The file may grow to the middle of the fourth line. */
    limit = (struct rlimit){3 * line + line / 2, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
    CHECK(!logwriter_flush(&w) && w.failing && errno == ENOSPC);
    CHECK(w.size < limit.rlim_cur && buf_len(&w.pending) == all - w.size);
    CHECK(logwriter_check(&w) == WANT_NONE);
    CHECK(!logwriter_flush(&w));
    setrlimit(RLIMIT_FSIZE, &before);
    CHECK(logwriter_flush(&w) && !w.failing && w.size == all);
    logwriter_done(&w);
    size_t lines;
    struct verify_result r = verify_all((const char *const[]){path, NULL}, &lines);
    CHECK_THAT(r.kind == VERIFY_INTACT && lines == 10, "%s", r.text);
    remove_folder();
}

TEST(others_hands_on_the_file_are_seen)
{
    char text[256];
    struct err err = {0};
    struct log_writer w;
    bool room;
    make_folder();
    cleanup_free char *path = in_folder("d.jsonl");
    logwriter_init(&w);
    CHECK(logwriter_open(&w, open(path, O_RDWR | O_CREAT | O_APPEND, 0600), -1, &err) == 0);
    CHECK(logwriter_add(&w, draft_of(1, text), &room) && logwriter_flush(&w) && logwriter_check(&w) == WANT_NONE);
    CHECK(truncate(path, 5) == 0 && logwriter_check(&w) == WANT_TAMPERED);
    CHECK(truncate(path, (off_t)w.size) == 0 && logwriter_check(&w) == WANT_NONE);
    CHECK(truncate(path, (off_t)w.size + 1) == 0 && logwriter_check(&w) == WANT_TAMPERED);
    CHECK(unlink(path) == 0 && logwriter_check(&w) == WANT_LOST);
    /* Drafts that would be more than a line are none. */
    CHECK(!logwriter_add(&w, slice_str("\"ts\":\"2026-11-20T18:08:24.000000Z\",\"a\":\"\n\""), &room) && room);
    CHECK(!logwriter_add(&w, slice_str("\"ts\":\"2026-11-20T18:08:24.000000Z\"},{\"a\":1"), &room) && room);
    CHECK(!logwriter_add(&w, slice_str("\"ts\":\"2026-11-20T18:08:24.000000Z\",\"seq\":1"), &room) && room);
    logwriter_done(&w);
    remove_folder();
}

static void
count_line(void *ctx, struct slice line)
{
    size_t *n = ctx;
    CHECK(line.len > 0 && line.ptr[0] == '{');
    ++*n;
}

TEST(tail_lines_are_whole_wherever_one_begins)
{
    char text[256];
    struct chain c;
    struct buf b;
    make_folder();
    cleanup_free char *path = in_folder("d.jsonl");
    chain_init(&c);
    buf_init(&b, 16u << 20);
    for (int i = 0; i < 8000; i++)
        chain_append(&c, &b, draft_of(i, text));
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    CHECK(fd_write_all(fd, buf_slice(&b)) == 0);
    size_t n = 0;
    log_each_tail_line(fd, UINT64_MAX, count_line, &n);
    CHECK(n == 8000);
    for (uint64_t max = 0; max < 700; max += 13) {
        n = 0;
        log_each_tail_line(fd, max, count_line, &n);
        CHECK(n <= 3);
    }
    close(fd);
    buf_done(&b);
    remove_folder();
}

/* ---- the process ---- */

struct stage {
    char *path;
    struct record_file file;
    int control, channels[2][2], shared, fold, bundle;
    pid_t pid;
    int starts, left; /* left: the channel of a worker that ended, when not 0 */
    char frame[CHANNEL_FRAME_MAX + 64];
};

struct wire_head { uint16_t type, fds; uint32_t len; };

static int
sealed(const char *config)
{
    struct bundle b = {0};
    struct err err = {0};
    bundle_add(&b, "config", config, strlen(config), FOR_ALL);
    int fd = bundle_seal(&b, FOR_RECORDER, false, &err);
    bundle_done(&b);
    return fd;
}

/* Runs recorder_main in a child of this test, with the descriptors that the supervisor would give. */
static void
start_recorder(struct stage *s)
{
    int pair[2], before = recordfile_before(s->path);
    CHECK(channel_pair(pair) == 0);
    fcntl(pair[1], F_SETFD, 0);
    fflush(NULL);
    s->pid = fork();
    if (s->pid == 0) {
        char numbers[8][16];
        int values[] = {pair[1], dup(s->shared), dup(s->bundle), dup(s->file.fd), dup(s->fold), dup(s->channels[0][1]), dup(s->channels[1][1]), s->starts > 0};
        for (int i = 0; i < 8; i++)
            snprintf(numbers[i], sizeof numbers[i], "%d", values[i]);
        char before_text[16], left_text[16], before_option[] = "--file-before", left_option[] = "--left";
        snprintf(before_text, sizeof before_text, "%d", before);
        snprintf(left_text, sizeof left_text, "%d", s->left ? dup(s->left) : -1);
        char *argv[] = {(char[]){"recorder"}, (char[]){"--control"}, numbers[0], (char[]){"--shared"}, numbers[1], (char[]){"--bundle"}, numbers[2],
                        (char[]){"--file"}, numbers[3], (char[]){"--fold"}, numbers[4], (char[]){"--record"}, numbers[5], (char[]){"--record"},
                        numbers[6], (char[]){"--again"}, numbers[7], NULL, NULL, NULL, NULL, NULL};
        int argc = 17;
        if (before >= 0)
            argv[argc++] = before_option, argv[argc++] = before_text;
        if (s->left)
            argv[argc++] = left_option, argv[argc++] = left_text;
        _exit(recorder_main(argc, argv));
    }
    close(pair[1]);
    if (before >= 0)
        close(before);
    s->control = pair[0];
    s->starts++;
}

static void
begin_stage(struct stage *s, const char *config)
{
    struct err err = {0};
    make_folder();
    *s = (struct stage){.path = in_folder("d.jsonl")};
    CHECK(recordfile_open(s->path, &s->file, &err) == 0);
    s->shared = shared_create();
    s->fold = memfd_create("fold", MFD_CLOEXEC);
    CHECK(ftruncate(s->fold, sizeof(struct fold_table)) == 0);
    s->bundle = sealed(config);
    CHECK(channel_pair(s->channels[0]) == 0 && channel_pair(s->channels[1]) == 0);
    start_recorder(s);
}

/* 0 after ten seconds without a frame. */
static int
next_frame(struct stage *s, int fd, struct slice *payload)
{
    struct pollfd p = {fd, POLLIN, 0};
    struct wire_head h;
    if (poll(&p, 1, 10000) <= 0)
        return 0;
    ssize_t n = recv(fd, s->frame, sizeof s->frame, MSG_DONTWAIT);
    if (n < (ssize_t)sizeof h)
        return 0;
    memcpy(&h, s->frame, sizeof h);
    *payload = slice_of(s->frame + sizeof h, (size_t)n - sizeof h);
    return h.type;
}

static void
say(int fd, uint16_t type, struct slice payload)
{
    struct wire_head h = {type, 0, (uint32_t)payload.len};
    struct iovec iov[2] = {{&h, sizeof h}, {(void *)(uintptr_t)payload.ptr, payload.len}};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
    CHECK(sendmsg(fd, &m, MSG_NOSIGNAL) > 0);
}

static void
wait_ready(struct stage *s)
{
    struct slice payload;
    int type = next_frame(s, s->control, &payload);
    CHECK_THAT(type == CONTROL_READY, "type %d %.*s", type, type == CONTROL_FAILED ? (int)payload.len - 1 : 0, payload.ptr + 1);
}

static bool
wait_ack(struct stage *s, int worker, uint64_t epoch, uint64_t number)
{
    struct slice payload;
    struct record_ack ack = {0};
    do {
        if (next_frame(s, s->channels[worker][0], &payload) != RECORD_FRAME_ACK)
            return false;
        memcpy(&ack, payload.ptr, sizeof ack);
    } while (ack.epoch != epoch || ack.number < number);
    return true;
}

static void
send_batch(struct stage *s, int worker, uint64_t epoch, uint64_t number, int first, int count)
{
    struct buf b;
    buf_init(&b, CHANNEL_FRAME_MAX);
    make_batch(&b, epoch, number, first, count);
    say(s->channels[worker][0], RECORD_FRAME_BATCH, buf_slice(&b));
    buf_done(&b);
}

static void
stop_recorder(struct stage *s)
{
    int status = 0;
    say(s->control, CONTROL_STOP, slice_of("", 0));
    CHECK(waitpid(s->pid, &status, 0) == s->pid);
    CHECK_THAT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
    close(s->control);
}

static void
kill_recorder(struct stage *s)
{
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    close(s->control);
}

static void
end_stage(struct stage *s)
{
    for (int i = 0; i < 2; i++)
        close(s->channels[i][0]), close(s->channels[i][1]);
    close(s->shared);
    close(s->fold);
    close(s->bundle);
    recordfile_close(&s->file);
    free(s->path);
    remove_folder();
}

TEST(records_are_written_then_acknowledged)
{
    struct stage s;
    size_t lines;
    begin_stage(&s, "{}");
    wait_ready(&s);
    send_batch(&s, 0, 11, 1, 0, 3);
    CHECK(wait_ack(&s, 0, 11, 1));
    CHECK(count_text(s.path, "\"id\":\"id-") == 3);
    send_batch(&s, 1, 12, 1, 3, 2);
    CHECK(wait_ack(&s, 1, 12, 1));
    /* What lies in a queue when the end comes is written too. */
    send_batch(&s, 0, 11, 2, 5, 4);
    stop_recorder(&s);
    CHECK(count_text(s.path, "\"id\":\"id-") == 9);
    CHECK(count_text(s.path, "\"event\":\"start\"") == 1 && count_text(s.path, "\"event\":\"stop\"") == 1);
    CHECK(count_text(s.path, "\"event\":\"checkpoint\"") == 1);
    struct verify_result r = verify_all((const char *const[]){s.path, NULL}, &lines);
    CHECK_THAT(r.kind == VERIFY_INTACT, "%s", r.text);
    end_stage(&s);
}

/* Answers a RESYNC as a worker does, with the batches given by their numbers. */
static void
answer_resync(struct stage *s, int worker, uint64_t epoch, uint64_t first, uint64_t last)
{
    struct slice payload;
    struct record_sync sync = {.epoch = epoch, .first = first, .last = last};
    int type;
    do
        type = next_frame(s, s->channels[worker][0], &payload);
    while (type == RECORD_FRAME_ACK);
    CHECK(type == RECORD_FRAME_RESYNC);
    memcpy(&sync.nonce, payload.ptr, sizeof sync.nonce);
    say(s->channels[worker][0], RECORD_FRAME_SYNC, slice_of(&sync, sizeof sync));
    for (uint64_t n = first; n <= last; n++)
        send_batch(s, worker, epoch, n, (int)n * 10, 5);
}

TEST(a_killed_recorder_loses_and_doubles_nothing)
{
    struct stage s;
    size_t lines;
    struct err err = {0};
    begin_stage(&s, "{}");
    wait_ready(&s);
    for (uint64_t n = 1; n <= 3; n++)
        send_batch(&s, 0, 11, n, (int)n * 10, 5);
    CHECK(wait_ack(&s, 0, 11, 3)); /* written; the worker is played as one that has not seen this */
    kill_recorder(&s);
    /* 4 is lost in a queue that nobody reads, 5 comes from a worker that dies too. */
    send_batch(&s, 0, 11, 4, 40, 5);
    send_batch(&s, 1, 99, 1, 1000, 5);
    CHECK(recordfile_mend(&s.file, &err) == 0);
    start_recorder(&s);
    wait_ready(&s);
    answer_resync(&s, 0, 11, 2, 4);
    answer_resync(&s, 1, 100, 1, 0); /* its successor has nothing to send again */
    CHECK(wait_ack(&s, 0, 11, 4));
    send_batch(&s, 1, 100, 1, 2000, 5);
    CHECK(wait_ack(&s, 1, 100, 1));
    stop_recorder(&s);
    CHECK(count_text(s.path, "\"id\":\"id-") == 30);
    for (int n = 1; n <= 4; n++)
        for (int i = 0; i < 5; i++) {
            char id[32];
            snprintf(id, sizeof id, "\"id\":\"id-%d\"", n * 10 + i);
            CHECK_THAT(count_text(s.path, id) == 1, "%s: %d", id, count_text(s.path, id));
        }
    CHECK(count_text(s.path, "\"id\":\"id-1003\"") == 1);
    struct verify_result r = verify_all((const char *const[]){s.path, NULL}, &lines);
    CHECK_THAT(r.kind == VERIFY_INTACT && r.starts == 2, "%s", r.text);
    end_stage(&s);
}

TEST(a_worker_that_lies_writes_no_line_of_its_own)
{
    struct stage s;
    struct buf b;
    size_t lines;
    static const char *const drafts[] = {
        "\"ts\":\"2026-11-20T18:08:24.000000Z\",\"a\":\"\n{\\\"x\\\":1}\"",
        "\"ts\":\"2026-11-20T18:08:24.000000Z\"}\n{\"ts\":\"2026-11-20T18:08:24.000000Z\"",
        "\"ts\":\"2026-11-20T18:08:24.000000Z\",\"hash\":\"x\"",
        "no time at all",
        "",
        TS "99,\"event\":\"decision\"",
        TS " ,\"event\":\"decision\"",
        TS ",\"event\":\"checkpoint\",\"head\":\"1:0\"",
        TS ",\"event\":\"decision\",\"event\":\"stop\"",
    };
    begin_stage(&s, "{}");
    wait_ready(&s);
    buf_init(&b, CHANNEL_FRAME_MAX);
    for (uint64_t i = 0; i < sizeof drafts / sizeof drafts[0]; i++) {
        struct record_batch head = {5, i + 1, DURABILITY_WRITTEN};
        struct record_item item = {.event = RECORD_DECISION, .draft = slice_str(drafts[i])};
        buf_clear(&b);
        CHECK(record_batch_begin(&b, &head) && record_batch_add(&b, &item));
        say(s.channels[0][0], RECORD_FRAME_BATCH, buf_slice(&b));
    }
    say(s.channels[0][0], RECORD_FRAME_SYNC, slice_str("rubbish"));
    say(s.channels[0][0], 4711, slice_str("rubbish"));
    say(s.control, CONTROL_READY, slice_of("", 0)); /* not the supervisor's word */
    buf_done(&b);
    send_batch(&s, 0, 5, 20, 0, 1);
    CHECK(wait_ack(&s, 0, 5, 20));
    stop_recorder(&s);
    CHECK(count_text(s.path, "\n") == 4); /* start, the one, checkpoint, stop */
    struct verify_result r = verify_all((const char *const[]){s.path, NULL}, &lines);
    CHECK_THAT(r.kind == VERIFY_INTACT, "%s", r.text);
    end_stage(&s);
}

static void
say_with(struct stage *s, uint16_t type, struct slice payload, int fd)
{
    struct wire_head h = {type, 1, (uint32_t)payload.len};
    union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int))]; } control = {0};
    struct iovec iov[2] = {{&h, sizeof h}, {(void *)(uintptr_t)payload.ptr, payload.len}};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = payload.len ? 2 : 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof(int));
    CHECK(sendmsg(s->control, &m, 0) > 0);
}

static void
send_file(struct stage *s)
{
    say_with(s, CONTROL_FILE, slice_of("", 0), s->file.fd);
}

/* As the supervisor does when worker 0 has ended and the next one starts. */
static void
renew_channel(struct stage *s)
{
    close(s->channels[0][0]);
    close(s->channels[0][1]);
    CHECK(channel_pair(s->channels[0]) == 0);
    struct control_channel told = {0, channel_id(s->channels[0][1])};
    say_with(s, CONTROL_CHANNEL, slice_of(&told, sizeof told), s->channels[0][1]);
}

static bool
wait_control(struct stage *s, int type, uint64_t slot, uint64_t id)
{
    struct slice payload;
    struct control_channel told;
    if (next_frame(s, s->control, &payload) != type || payload.len != sizeof told)
        return false;
    memcpy(&told, payload.ptr, sizeof told);
    return told.slot == slot && told.id == id;
}

TEST(a_lie_ends_its_channel_and_the_next_worker_reports_again)
{
    struct stage s;
    size_t lines;
    begin_stage(&s, "{}");
    wait_ready(&s);
    send_batch(&s, 0, 5, 1, 0, 2);
    say(s.channels[0][0], RECORD_FRAME_BATCH, slice_str("rubbish"));
    CHECK(wait_control(&s, CONTROL_CHANNEL_ENDED, 0, channel_id(s.channels[0][1])));
    struct wire_head h = {RECORD_FRAME_BATCH, 0, 0};
    CHECK(send(s.channels[0][0], &h, sizeof h, MSG_NOSIGNAL) < 0 && errno == EPIPE);
    /* The other worker is not hurt. */
    send_batch(&s, 1, 7, 1, 50, 1);
    CHECK(wait_ack(&s, 1, 7, 1));
    renew_channel(&s);
    CHECK(wait_control(&s, CONTROL_CHANNEL_TAKEN, 0, channel_id(s.channels[0][1])));
    send_batch(&s, 0, 6, 1, 10, 3);
    CHECK(wait_ack(&s, 0, 6, 1));
    stop_recorder(&s);
    CHECK(count_text(s.path, "\"id\":\"id-") == 6);
    struct verify_result r = verify_all((const char *const[]){s.path, NULL}, &lines);
    CHECK_THAT(r.kind == VERIFY_INTACT, "%s", r.text);
    end_stage(&s);
}

static void
say_patiently(int fd, uint16_t type, struct slice payload, bool *gone)
{
    struct wire_head h = {type, 0, (uint32_t)payload.len};
    struct iovec iov[2] = {{&h, sizeof h}, {(void *)(uintptr_t)payload.ptr, payload.len}};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
    struct pollfd p = {fd, POLLOUT, 0};
    while (sendmsg(fd, &m, MSG_NOSIGNAL) < 0 && !(*gone = errno == EPIPE))
        poll(&p, 1, 1000);
}

TEST(a_worker_that_never_answers_is_ended_before_it_fills_the_memory)
{
    struct stage s;
    struct buf b;
    bool gone = false;
    unsigned sent = 0;
    begin_stage(&s, "{}");
    wait_ready(&s);
    kill_recorder(&s);
    start_recorder(&s); /* and asks all to send again */
    wait_ready(&s);
    buf_init(&b, CHANNEL_FRAME_MAX);
    for (uint64_t n = 1; !gone && sent < 64u << 20; n++) {
        make_batch(&b, 5, n, (int)n * 100, 100);
        say_patiently(s.channels[0][0], RECORD_FRAME_BATCH, buf_slice(&b), &gone);
        sent += (unsigned)buf_len(&b);
    }
    CHECK_THAT(gone && sent > JOURNAL_UNACKED_MAX && sent < 4 * JOURNAL_UNACKED_MAX, "%u bytes", sent);
    CHECK(wait_control(&s, CONTROL_CHANNEL_ENDED, 0, channel_id(s.channels[0][1])));
    renew_channel(&s);
    CHECK(wait_control(&s, CONTROL_CHANNEL_TAKEN, 0, channel_id(s.channels[0][1])));
    answer_resync(&s, 1, 7, 1, 0);
    send_batch(&s, 0, 6, 1, 5, 1);
    CHECK(wait_ack(&s, 0, 6, 1));
    stop_recorder(&s);
    buf_done(&b);
    end_stage(&s);
}

TEST(a_channel_that_is_shut_ends_with_its_worker)
{
    static const int how[] = {SHUT_RDWR, SHUT_WR, SHUT_RD};
    struct stage s;
    begin_stage(&s, "{}");
    wait_ready(&s);
    for (uint64_t i = 0; i < 3; i++) {
        send_batch(&s, 0, 20 + i, 1, (int)i * 10, 2);
        if (how[i] != SHUT_RD)
            CHECK(wait_ack(&s, 0, 20 + i, 1));
        CHECK(shutdown(s.channels[0][0], how[i]) == 0);
        if (how[i] == SHUT_RD)
            send_batch(&s, 0, 20 + i, 2, 90, 1); /* its acknowledgement finds nobody */
        CHECK(wait_control(&s, CONTROL_CHANNEL_ENDED, 0, channel_id(s.channels[0][1])));
        renew_channel(&s);
        CHECK(wait_control(&s, CONTROL_CHANNEL_TAKEN, 0, channel_id(s.channels[0][1])));
    }
    send_batch(&s, 0, 30, 1, 30, 2);
    CHECK(wait_ack(&s, 0, 30, 1));
    stop_recorder(&s);
    CHECK(count_text(s.path, "\"id\":\"id-") >= 8);
    end_stage(&s);
}

TEST(what_a_dead_worker_left_is_written_before_the_next_is_heard)
{
    struct stage s;
    begin_stage(&s, "{}");
    wait_ready(&s);
    kill(s.pid, SIGSTOP);
    for (uint64_t n = 1; n <= 40; n++)
        send_batch(&s, 0, 5, n, (int)n * 10, 5);
    renew_channel(&s);
    uint64_t fresh = channel_id(s.channels[0][1]);
    send_batch(&s, 0, 6, 1, 5000, 1);
    kill(s.pid, SIGCONT);
    struct slice payload;
    int type;
    while ((type = next_frame(&s, s.control, &payload)) == CONTROL_CHANNEL_ENDED)
        continue; /* that of the old one */
    struct control_channel told = {0};
    CHECK(type == CONTROL_CHANNEL_TAKEN && payload.len == sizeof told);
    memcpy(&told, payload.ptr, sizeof told);
    CHECK(told.slot == 0 && told.id == fresh);
    CHECK(count_text(s.path, "\"id\":\"id-") >= 200); /* it says so when they are in the file */
    CHECK(wait_ack(&s, 0, 6, 1));
    stop_recorder(&s);
    CHECK(count_text(s.path, "\"id\":\"id-") == 201);
    end_stage(&s);
}

TEST(a_fresh_recorder_takes_what_dead_workers_left)
{
    struct stage s;
    begin_stage(&s, "{}");
    wait_ready(&s);
    send_batch(&s, 0, 5, 1, 10, 5);
    CHECK(wait_ack(&s, 0, 5, 1));
    kill_recorder(&s);
    send_batch(&s, 0, 5, 1, 10, 5); /* in the file already */
    send_batch(&s, 0, 5, 2, 20, 5);
    s.left = s.channels[0][1];
    close(s.channels[0][0]);
    CHECK(channel_pair(s.channels[0]) == 0);
    start_recorder(&s);
    wait_ready(&s);
    CHECK(wait_control(&s, CONTROL_CHANNEL_TAKEN, 0, channel_id(s.channels[0][1])));
    CHECK(count_text(s.path, "\"id\":\"id-") == 10);
    answer_resync(&s, 0, 6, 1, 0);
    send_batch(&s, 0, 6, 1, 30, 1);
    CHECK(wait_ack(&s, 0, 6, 1));
    stop_recorder(&s);
    CHECK(count_text(s.path, "\"id\":\"id-") == 11);
    close(s.left);
    end_stage(&s);
}

TEST(rotation_carries_the_chain_on)
{
    struct stage s;
    struct slice payload;
    struct err err = {0};
    struct control_want_file want = {0};
    size_t lines;
    begin_stage(&s, "{\"record\":{\"rotate_bytes\":2000}}");
    wait_ready(&s);
    send_batch(&s, 0, 1, 1, 0, 10);
    CHECK(wait_ack(&s, 0, 1, 1));
    CHECK(next_frame(&s, s.control, &payload) == CONTROL_WANT_FILE && payload.len == sizeof want);
    memcpy(&want, payload.ptr, sizeof want);
    CHECK(want.why == WANT_ROTATED && want.first_seq == 1);
    /* While it waits, records come; they are acknowledged when they are in the new file. */
    send_batch(&s, 0, 1, 2, 10, 3);
    CHECK(recordfile_replace(&s.file, WANT_ROTATED, want.first_seq, &err) == 0);
    send_file(&s);
    CHECK(wait_ack(&s, 0, 1, 2));
    stop_recorder(&s);
    cleanup_free char *old = in_folder("d.jsonl.000000000001");
    CHECK(count_text(old, "\"id\":\"id-") == 10 && count_text(old, "\"cause\":\"rotated\"") == 1);
    CHECK(count_text(s.path, "\"id\":\"id-") == 3);
    char *text;
    size_t len;
    CHECK(file_read(s.path, 1 << 20, FILE_ANY, &text, &len, &err) == 0);
    char *newline = strchr(text, '\n');
    CHECK(newline && (*newline = '\0', strstr(text, "\"event\":\"start\"") != NULL));
    free(text);
    struct verify_result r = verify_all((const char *const[]){old, s.path, NULL}, &lines);
    CHECK_THAT(r.kind == VERIFY_INTACT, "%s", r.text);
    /* A recorder that starts on an empty file finds the head in the one before. */
    CHECK(recordfile_replace(&s.file, WANT_ROTATED, 13, &err) == 0);
    start_recorder(&s);
    wait_ready(&s);
    stop_recorder(&s);
    cleanup_free char *second = in_folder("d.jsonl.000000000013");
    r = verify_all((const char *const[]){old, second, s.path, NULL}, &lines);
    CHECK_THAT(r.kind == VERIFY_INTACT, "%s", r.text);
    end_stage(&s);
}

TEST(a_file_that_was_cut_is_asked_to_be_replaced)
{
    struct stage s;
    struct slice payload;
    struct control_want_file want = {0};
    begin_stage(&s, "{}");
    wait_ready(&s);
    send_batch(&s, 0, 1, 1, 0, 2);
    CHECK(wait_ack(&s, 0, 1, 1));
    CHECK(truncate(s.path, 10) == 0);
    CHECK(next_frame(&s, s.control, &payload) == CONTROL_WANT_FILE);
    memcpy(&want, payload.ptr, sizeof want);
    CHECK(want.why == WANT_TAMPERED);
    /* The workers hear that nothing is kept meanwhile. */
    CHECK(next_frame(&s, s.channels[0][0], &payload) == RECORD_FRAME_STATE && payload.ptr[0] == 0);
    kill_recorder(&s);
    end_stage(&s);
}

TEST(a_flood_is_folded_and_hides_no_allow)
{
    struct stage s;
    struct buf b;
    char text[256];
    begin_stage(&s, "{}");
    wait_ready(&s);
    buf_init(&b, CHANNEL_FRAME_MAX);
    struct record_batch head = {1, 1, DURABILITY_SYNCED};
    CHECK(record_batch_begin(&b, &head));
    for (int i = 0; i < 300; i++) {
        struct record_item item = {.fold = true, .event = RECORD_DECISION, .key = slice_str("\"sandbox\":\"s\",\"reason\":\"host_not_allowed\",\"host\":\"h\""),
                                   .draft = draft_of(i, text)};
        CHECK(record_batch_add(&b, &item));
    }
    struct record_item allow = {.event = RECORD_DECISION, .draft = draft_of(9999, text)};
    CHECK(record_batch_add(&b, &allow));
    say(s.channels[0][0], RECORD_FRAME_BATCH, buf_slice(&b));
    buf_done(&b);
    CHECK(wait_ack(&s, 0, 1, 1));
    CHECK(count_text(s.path, "\"id\":\"id-") == 11 && count_text(s.path, "\"id\":\"id-9999\"") == 1);
    /* The count outlives the recorder. */
    kill_recorder(&s);
    start_recorder(&s);
    wait_ready(&s);
    stop_recorder(&s);
    CHECK(count_text(s.path, "\"event\":\"repeated\"") == 1 && count_text(s.path, "\"count\":290") == 1);
    CHECK(count_text(s.path, "\"reason\":\"host_not_allowed\"") == 1);
    end_stage(&s);
}

TEST(nobody_starts_it_by_hand)
{
    struct role_start start;
    struct err err = {0};
    char *argv[] = {(char[]){"recorder"}, (char[]){"--control"}, (char[]){"0"}, NULL};
    CHECK(role_begin(ROLE_RECORDER, 1, argv, &start, &err) < 0 && strstr(err.text, "sallyport serve"));
    CHECK(role_begin(ROLE_WORKER, 3, argv, &start, &err) < 0 && err.kind == ERR_INVALID);
}

TEST(only_what_the_table_says_is_heard)
{
    struct frame f = {.type = CONTROL_READY};
    CHECK(control_allowed(ROLE_WORKER, &f) && !control_allowed(ROLE_SUPERVISOR, &f));
    f.payload = slice_str("x");
    CHECK(!control_allowed(ROLE_WORKER, &f));
    f = (struct frame){.type = CONTROL_WANT_FILE, .payload = slice_of("0123456789abcdef", 16)};
    CHECK(control_allowed(ROLE_RECORDER, &f) && !control_allowed(ROLE_WORKER, &f));
    f = (struct frame){.type = CONTROL_BUNDLE, .payload = slice_of("01234567", 8)};
    CHECK(!control_allowed(ROLE_SUPERVISOR, &f)); /* without a descriptor */
    f.fd_count = 1;
    CHECK(control_allowed(ROLE_SUPERVISOR, &f) && !control_allowed(ROLE_WORKER, &f));
    f.type = 999;
    CHECK(!control_allowed(ROLE_SUPERVISOR, &f));
}
