/* What counts as reading a registry: the grammar of the shipped data file, what it must refuse however it is written, and files
 * that are no such grammar. Names of hosts come from the file. */
#include "sallyport/policy/reads.h"

#include "sallyport/policy/registries.h"
#include "unit/policies.h"

#define MEGABYTE 1048576
#define JSON_TYPE "application/json"
#define FORM_TYPE "application/x-www-form-urlencoded"
#define GIT_TYPE "application/x-git-upload-pack-request"

static char *shipped_text;
static json_t *shipped;

static void
open_shipped(void)
{
    size_t len = 0;
    if (shipped)
        return;
    shipped_text = read_text("policies/registries.json", &len);
    shipped = json_loadb(shipped_text, len, 0, NULL);
    CHECK(shipped);
}

static void
host_text(char text[512], const char *label, const char *domain)
{
    bool itself = strcmp(label, "@") == 0;
    snprintf(text, 512, "%s%s%s:443", itself ? "" : label, itself ? "" : ".", domain);
}

/* The first host of a group of reads. */
static void
host_of_group(const char *group, char text[512])
{
    json_t *hosts = json_object_get(json_object_get(json_object_get(shipped, "reads"), group), "hosts");
    void *first = json_object_iter(hosts);
    CHECK_THAT(first, "%s", group);
    host_text(text, json_string_value(json_array_get(json_object_iter_value(first), 0)), json_object_iter_key(first));
}

/* A policy that reads by the managers that the group is for, else by all of the file. */
static struct policy *
policy_for(const char *group, const char *more)
{
    json_t *own = json_object_get(json_object_get(json_object_get(shipped, "reads"), group), "managers"), *names = json_array();
    const char *name;
    json_t *value;
    json_object_foreach(json_object_get(shipped, "managers"), name, value)
        json_array_append_new(names, json_string(name));
    char *list = json_dumps(own ? own : names, 0), text[4096];
    snprintf(text, sizeof text, "{\"networking\": {\"allow_package_managers\": true}, \"package_managers\": %s%s}", list, more);
    struct policy_context_options o = {.registries_json = slice_str(shipped_text)};
    struct policy *p = compile_in(context_with(&o), text, POLICY_FILE, NULL);
    free(list);
    json_decref(names);
    return p;
}

struct sent {
    const char *group, *method, *path, *type; /* type NULL: no body */
    uint64_t len;
};

static struct verdict
send_to(const struct policy *p, const struct sent *s)
{
    char authority[512];
    struct target t;
    struct verdict v;
    host_of_group(s->group, authority);
    CHECK_THAT(target_from_authority(slice_str(authority), &t) == REASON_OK, "%s", authority);
    t.scheme = SCHEME_HTTPS;
    struct question q = {.target = &t, .method = slice_str(s->method), .path = slice_str(s->path)};
    if (s->type) {
        q.body = QUESTION_BODY_SENT;
        q.body_len = s->len;
        q.content_type = *s->type ? slice_str(s->type) : slice_of(NULL, 0);
    }
    policy_decide(p, &q, &v);
    return v;
}

static void
hold(const struct sent *rows, size_t count, enum reason wanted)
{
    open_shipped();
    for (size_t i = 0; i < count; i++) {
        struct policy *p = policy_for(rows[i].group, "");
        struct verdict v = send_to(p, &rows[i]);
        CHECK_THAT(v.reason == wanted && (v.action == ACTION_ALLOW) == (wanted == REASON_OK), "%s %s %s: %s", rows[i].group, rows[i].method,
                   rows[i].path, reason_text(v.reason));
        policy_unref(p);
    }
}
#define HOLD(rows, wanted) hold(rows, sizeof rows / sizeof rows[0], wanted)

TEST(what_clients_read)
{
    static const struct sent rows[] = {
        {"npm", "GET", "/left-pad", NULL, 0}, {"npm", "HEAD", "/left-pad", NULL, 0}, {"npm", "GET", "/@types%2fnode", NULL, 0},
        {"npm", "GET", "/@types%2Fnode", NULL, 0}, {"npm", "GET", "/@types/node", NULL, 0}, {"npm", "GET", "/left-pad/latest", NULL, 0},
        {"npm", "GET", "/left-pad/1.0.0", NULL, 0}, {"npm", "GET", "/@types%2fnode/1.0.0", NULL, 0},
        {"npm", "GET", "/left-pad/-/left-pad-1.3.0.tgz", NULL, 0}, {"npm", "GET", "/@types/node/-/node-22.0.0.tgz", NULL, 0},
        {"npm", "GET", "/@types%2fnode/-/node-22.0.0.tgz", NULL, 0},
        {"npm", "GET", "/-/v1/search?text=left&size=20", NULL, 0}, {"npm", "GET", "/-/ping?write=true", NULL, 0},
        {"npm", "GET", "/-/npm/v1/keys", NULL, 0}, {"npm", "GET", "/-/npm/v1/attestations/@types%2fnode@22.0.0", NULL, 0},
        {"npm", "GET", "/-/package/@types%2fnode/dist-tags", NULL, 0},
        {"npm", "POST", "/-/npm/v1/security/advisories/bulk", JSON_TYPE, 300}, {"npm", "POST", "/-/npm/v1/security/audits/quick", JSON_TYPE, MEGABYTE},
        {"npm", "POST", "/-/npm/v1/security/audits", "Application/JSON; charset=utf-8", BODY_ANY_LENGTH},
        {"pypi", "GET", "/simple/", NULL, 0}, {"pypi", "GET", "/simple/requests/", NULL, 0}, {"pypi", "GET", "/pypi/requests/json", NULL, 0},
        {"pypi", "GET", "/pypi/requests/2.32.0/json", NULL, 0}, {"pypi", "GET", "/packages/source/r/requests/requests-2.32.0.tar.gz", NULL, 0},
        {"crates", "GET", "/api/v1/crates?q=serde&per_page=10", NULL, 0}, {"crates", "GET", "/api/v1/crates/serde/1.0.0/download", NULL, 0},
        {"rubygems", "GET", "/versions", NULL, 0}, {"rubygems", "GET", "/info/rails", NULL, 0}, {"rubygems", "GET", "/gems/rails-8.0.0.gem", NULL, 0},
        {"rubygems", "GET", "/quick/Marshal.4.8/rails-8.0.0.gemspec.rz", NULL, 0}, {"rubygems", "GET", "/specs.4.8.gz", NULL, 0},
        {"rubygems", "GET", "/api/v1/search.json?query=rails", NULL, 0}, {"rubygems", "GET", "/api/v1/gems/rails.json", NULL, 0},
        {"go", "GET", "/example.com/!azure/mod/@v/list", NULL, 0}, {"go", "GET", "/example.com/mod/@v/v1.0.0.zip", NULL, 0},
        {"go", "GET", "/example.com/mod/@latest", NULL, 0}, {"go", "GET", "/sumdb/sum.example/supported", NULL, 0},
        {"go-sum", "GET", "/lookup/example.com/mod@v1.0.0", NULL, 0}, {"go-sum", "GET", "/tile/8/0/x000/003", NULL, 0},
        {"go-storage", "GET", "/proxy-golang-org-prod/abc?Expires=1", NULL, 0},
        {"oci", "GET", "/v2/", NULL, 0}, {"oci", "HEAD", "/v2/library/alpine/manifests/latest", NULL, 0},
        {"oci", "GET", "/v2/library/alpine/blobs/sha256:0123abcdef", NULL, 0}, {"oci", "GET", "/v2/a/b/c/tags/list?n=10", NULL, 0},
        {"oci", "GET", "/v2/a/b/blobs/sha256%3A0123abcdef", NULL, 0},
        {"oci", "GET", "/token?service=r&scope=repository:a/b:pull", NULL, 0}, {"oci", "POST", "/token", FORM_TYPE, 200},
        {"packagist", "GET", "/p2/monolog/monolog.json", NULL, 0}, {"packagist", "POST", "/api/security-advisories/", FORM_TYPE, 900},
        {"packagist", "GET", "/search.json?q=monolog", NULL, 0}, {"hex", "GET", "/api/packages/phoenix", NULL, 0}, {"hex", "GET", "/api/packages?search=x", NULL, 0},
        {"hackage", "GET", "/01-index.tar.gz", NULL, 0}, {"hackage", "GET", "/package/text-2.1/text-2.1.tar.gz", NULL, 0},
        {"luarocks", "GET", "/manifest-5.4.zip", NULL, 0}, {"luarocks", "GET", "/lua-cjson-2.1.0-1.src.rock", NULL, 0},
        {"terraform", "GET", "/.well-known/terraform.json", NULL, 0}, {"terraform", "GET", "/v1/providers/hashicorp/aws/versions", NULL, 0},
        {"metacpan", "GET", "/v1/download_url/Moose", NULL, 0}, {"metacpan", "POST", "/v1/release/_search", JSON_TYPE, 100},
        {"pub", "GET", "/api/packages/http", NULL, 0}, {"pub", "GET", "/api/packages/versions", NULL, 0},
        {"pub", "GET", "/api/packages/http/versions/1.2.0", NULL, 0}, {"pub", "GET", "/api/archives/http-1.2.0.tar.gz", NULL, 0},
        {"github", "GET", "/o/r.git/info/refs?service=git-upload-pack", NULL, 0}, {"github", "POST", "/o/r.git/git-upload-pack", GIT_TYPE, 700},
        {"github", "GET", "/o/r/releases/download/v1/x.tar.gz", NULL, 0}, {"swift", "POST", "/o/r/git-upload-pack", GIT_TYPE, BODY_ANY_LENGTH},
        {"cocoapods", "GET", "/cocoa/all_pods_versions_0_0_0.txt", NULL, 0}, {"cocoapods-specs", "GET", "/CocoaPods/Specs/master/x", NULL, 0},
        {"npm", "GET", "/", NULL, 0}, {"oci", "HEAD", "/", NULL, 0}, {"pypi", "GET", "/", NULL, 0},
        {"ocsp", "POST", "/", "application/ocsp-request", 80}, {"files", "GET", "/any/where%20else/x+y~1%3a2.deb?q", NULL, 0},
    };
    HOLD(rows, REASON_OK);
}

TEST(what_publishes_is_a_method_that_does_not_read)
{
    static const struct sent rows[] = {
        {"npm", "PUT", "/mypkg", JSON_TYPE, 900}, {"npm", "PUT", "/@me%2fmypkg", JSON_TYPE, 900}, {"npm", "DELETE", "/mypkg/-rev/1", NULL, 0},
        {"npm", "PUT", "/-/user/org.couchdb.user:me", JSON_TYPE, 50}, {"npm", "PUT", "/-/package/mypkg/dist-tags/latest", JSON_TYPE, 5},
        {"npm", "POST", "/mypkg", JSON_TYPE, 900}, {"npm", "PATCH", "/mypkg", JSON_TYPE, 9}, {"npm", "OPTIONS", "/mypkg", NULL, 0},
        {"pypi", "POST", "/legacy/", "multipart/form-data; boundary=x", 900}, {"pypi", "POST", "/pypi", "text/xml", 10},
        {"crates", "PUT", "/api/v1/crates/new", "application/octet-stream", 900}, {"crates", "DELETE", "/api/v1/crates/x/1.0.0/yank", NULL, 0},
        {"crates", "PUT", "/api/v1/crates/x/owners", JSON_TYPE, 9}, {"rubygems", "POST", "/api/v1/gems", "application/octet-stream", 900},
        {"rubygems", "DELETE", "/api/v1/gems/yank", FORM_TYPE, 9}, {"go", "POST", "/example.com/mod/@v/list", JSON_TYPE, 1},
        {"oci", "PUT", "/v2/a/b/manifests/latest", "application/vnd.oci.image.manifest.v1+json", 900}, {"oci", "PATCH", "/v2/a/b/blobs/uploads/1-2-3", "application/octet-stream", 900},
        {"oci", "DELETE", "/v2/a/b/manifests/sha256:00", NULL, 0}, {"hex", "PUT", "/api/packages/x", JSON_TYPE, 1},
        {"go-storage", "PUT", "/proxy-golang-org-prod/x", "text/plain", 1}, {"go-storage", "POST", "/any/o?uploads", "text/plain", 1},
        {"hackage", "PUT", "/package/x-1/docs", "application/x-tar", 1}, {"github", "PUT", "/o/r", "text/plain", 1},
        {"github", "POST", "/o/r/issues", FORM_TYPE, 9}, {"github", "POST", "/o/r.git/git-receive-pack", "application/x-git-receive-pack-request", 900},
        {"files", "PUT", "/x.tar.gz", "text/plain", 1}, {"files", "POST", "/x", "text/plain", 1},
        /* a read with content, and a POST that reads with content of another kind */
        {"npm", "GET", "/left-pad", JSON_TYPE, 5}, {"npm", "GET", "/left-pad", JSON_TYPE, BODY_ANY_LENGTH}, {"files", "HEAD", "/x", "", 5},
        {"npm", "POST", "/-/npm/v1/security/advisories/bulk", "multipart/form-data; boundary=x", 300},
        {"npm", "POST", "/-/npm/v1/security/advisories/bulk", "", 300}, {"npm", "POST", "/-/npm/v1/security/advisories/bulk", "application/jsonx", 300},
        {"npm", "POST", "/-/npm/v1/security/advisories/bulk", "text/plain, application/json", 300},
        {"oci", "POST", "/token", JSON_TYPE, 10}, {"github", "POST", "/o/r.git/git-upload-pack", "application/x-git-receive-pack-request", 700},
        {"npm", "get", "/left-pad", NULL, 0},
    };
    HOLD(rows, REASON_METHOD_NOT_ALLOWED);
}

TEST(what_is_no_endpoint_for_reading_is_a_path)
{
    static const struct sent rows[] = {
        {"npm", "POST", "/-/v1/login", JSON_TYPE, 9}, {"npm", "GET", "/-/whoami", NULL, 0}, {"npm", "GET", "/-/npm/v1/tokens", NULL, 0},
        {"npm", "POST", "/-/npm/v1/tokens", JSON_TYPE, 9}, {"npm", "GET", "/_session", NULL, 0}, {"npm", "GET", "/-/user/me", NULL, 0},
        {"npm", "POST", "/-/npm/v1/oidc/token/exchange/package/x", JSON_TYPE, 9}, {"npm", "POST", "/-/stage/package/x", JSON_TYPE, 9},
        {"pypi", "GET", "/manage/account/", NULL, 0}, {"crates", "GET", "/api/v1/me", NULL, 0}, {"rubygems", "GET", "/api/v1/api_key", NULL, 0},
        {"oci", "POST", "/v2/a/b/blobs/uploads/", "application/octet-stream", 0}, {"oci", "POST", "/v2/a/b/blobs/uploads/?mount=sha256:00&from=c", FORM_TYPE, 1},
        {"oci", "GET", "/v2/a/b/blobs/uploads/1-2-3", NULL, 0}, {"go-storage", "GET", "/somebody-elses-bucket/x?d=secret", NULL, 0},
        {"pub", "GET", "/api/packages/versions/new", NULL, 0}, {"pub", "GET", "/api/packages/versions/newUploadFinish?upload_id=1", NULL, 0},
        {"github", "GET", "/o/r.git/info/refs?service=git-receive-pack", NULL, 0}, {"github", "GET", "/o/r.git/info/refs?service=git-upload-pack&service=git-receive-pack", NULL, 0},
        {"github", "GET", "/o/r.git/info/refs?service=git%2Dreceive-pack", NULL, 0}, {"github", "GET", "/o/r.git/info/refs", NULL, 0},
        {"github", "GET", "/o/r.git/info/refs/?service=git-receive-pack", NULL, 0}, {"github", "GET", "/o/r.git/info/./refs?service=git-receive-pack", NULL, 0},
        {"swift", "GET", "/o/r/settings", NULL, 0}, {"cocoapods", "GET", "/npm/x/y.js?d=secret", NULL, 0}, {"cocoapods-specs", "GET", "/o/r/main/x", NULL, 0},
        {"luarocks", "GET", "/api/1/key/status", NULL, 0}, {"metacpan", "GET", "/user/favorite", NULL, 0}, {"metacpan", "POST", "/user/favorite/_search/x", JSON_TYPE, 1},
        {"packagist", "POST", "/api/create-package", JSON_TYPE, 1},
    };
    HOLD(rows, REASON_PATH_NOT_ALLOWED);
}

/* Other spellings of an endpoint that reads, and other endpoints in the spelling of one that does. */
TEST(paths_that_are_written_to_be_taken_for_another)
{
    static const char *const posts[] = {
        "//-/npm/v1/security/advisories/bulk", "/-/npm/v1/security/advisories/bulk/", "/-/npm/v1/security/advisories//bulk",
        "/-%2fnpm/v1/security/advisories/bulk", "/-/npm%2Fv1/security/advisories/bulk", "/%2d/npm/v1/security/advisories/bulk",
        "/mypkg/../-/npm/v1/security/advisories/bulk", "/-/./npm/v1/security/advisories/bulk", "/-/npm/v1/security/advisories/bulk?rev=1",
        "/-/npm/v1/security/advisories/bulk?", "/-/npm/v1/security/advisories/bulk;x", "/-/npm/v1/security/advisories/bulk%00",
        "/-/npm/v1/security/advisories/bulk%2f..%2f..%2fmypkg", "/-/npm/v1/security/advisories/bulk/../../mypkg", "/-/NPM/v1/security/advisories/bulk",
        "/-/npm/v1/security/advisories/bulk%20", "/-/npm/v1/security/advisories/bulk\\..\\x", "/-/npm/v1/security/advisories/%62ulk",
        "/x/-/npm/v1/security/advisories/bulk", "-/npm/v1/security/advisories/bulk", "/-/npm/v1/security/advisories/bulk%", "/-/npm/v1/security/advisories/bulk#x",
    };
    static const struct sent gets[] = {
        {"go-storage", "GET", "/other/..%2fproxy-golang-org-prod/x", NULL, 0}, {"go-storage", "GET", "/proxy-golang-org-prod/../other/x", NULL, 0},
        {"go-storage", "GET", "/proxy-golang-org-prod/..%2fother/x", NULL, 0}, {"go-storage", "GET", "/proxy-golang-org-prod/%2e%2e/other/x", NULL, 0},
        {"go-storage", "GET", "/proxy-golang-org-prod%2fx/y", NULL, 0}, {"go-storage", "GET", "/other%2fproxy-golang-org-prod/x", NULL, 0},
        {"go-storage", "GET", "/proxy-golang-org-prod/%252e%252e/other", NULL, 0}, {"go-storage", "GET", "/proxy-golang-org-prod/a%2f..%2f..%2fother", NULL, 0},
        {"go-storage", "GET", "/proxy-golang-org-prod/..;/other/x", NULL, 0}, {"go-storage", "GET", "/proxy-golang-org-prod/a%5c..%5cother", NULL, 0},
        {"go-storage", "GET", "/proxy-golang-org-prod%2f..%2fother/x", NULL, 0}, {"go-storage", "GET", "/Proxy-golang-org-prod/x", NULL, 0},
        {"npm", "GET", "/@types%2f..%2f-%2fwhoami", NULL, 0}, {"npm", "GET", "/@a%2f%2fwhoami", NULL, 0}, {"npm", "GET", "/@a%252fb", NULL, 0},
        {"npm", "GET", "/x%2f..%2f-/npm/v1/tokens", NULL, 0}, {"npm", "GET", "/-%2fwhoami", NULL, 0}, {"npm", "GET", "/a%2fb/../c", NULL, 0},
        {"npm", "GET", "/%2fx", NULL, 0}, {"npm", "GET", "/@a%2f", NULL, 0},
        {"pub", "GET", "/api/packages/versions%2fnew", NULL, 0}, {"pub", "GET", "/api/packages/x/..%2fversions/new", NULL, 0},
        {"pub", "GET", "/api/packages//versions/new", NULL, 0}, {"pub", "GET", "/api/packages/versions/%6eew", NULL, 0}, {"pub", "GET", "/api/packages/./versions/new", NULL, 0},
        {"pub", "GET", "/api/packages/x/../versions/new", NULL, 0},
    };
    open_shipped();
    struct policy *p = policy_for("npm", "");
    for (size_t i = 0; i < sizeof posts / sizeof posts[0]; i++) {
        struct sent s = {"npm", "POST", posts[i], JSON_TYPE, 10};
        struct verdict v = send_to(p, &s);
        CHECK_THAT(v.action == ACTION_DENY && (v.reason == REASON_PATH_NOT_ALLOWED || v.reason == REASON_METHOD_NOT_ALLOWED), "%s: %s", posts[i], reason_text(v.reason));
    }
    policy_unref(p);
    HOLD(gets, REASON_PATH_NOT_ALLOWED);
}

TEST(bodies_are_held_to_their_length)
{
    static const struct sent large[] = {
        {"npm", "POST", "/-/npm/v1/security/advisories/bulk", JSON_TYPE, MEGABYTE + 1}, {"oci", "POST", "/token", FORM_TYPE, 65537},
        {"ocsp", "POST", "/", "application/ocsp-request", 16385}, {"github", "POST", "/o/r/git-upload-pack", GIT_TYPE, BODY_ANY_LENGTH - 1},
    };
    HOLD(large, REASON_BODY_TOO_LARGE);
    struct policy *p = policy_for("npm", "");
    struct verdict v = send_to(p, &(struct sent){"npm", "POST", "/-/npm/v1/security/advisories/bulk", JSON_TYPE, BODY_ANY_LENGTH});
    CHECK(v.action == ACTION_ALLOW && v.body_max == MEGABYTE);
    v = send_to(p, &(struct sent){"npm", "GET", "/x", NULL, 0});
    CHECK(v.action == ACTION_ALLOW && v.body_max == 0);
    policy_unref(p);
    p = policy_for("npm", ", \"package_access\": \"write\"");
    v = send_to(p, &(struct sent){"npm", "PUT", "/x", JSON_TYPE, UINT64_C(1) << 40});
    CHECK(v.action == ACTION_ALLOW && v.body_max == BODY_ANY_LENGTH);
    policy_unref(p);
    p = policy_for("npm", ", \"mode\": \"report\"");
    v = send_to(p, &large[0]);
    CHECK(v.action == ACTION_ALLOW && v.would_deny && v.would_reason == REASON_BODY_TOO_LARGE && v.body_max == BODY_ANY_LENGTH);
    v = send_to(p, &(struct sent){"npm", "GET", "/x", JSON_TYPE, 9});
    CHECK(v.action == ACTION_ALLOW && v.would_deny && v.would_reason == REASON_METHOD_NOT_ALLOWED);
    policy_unref(p);
}

/* An open stream may end without content, and an upgrade is no read wherever it is asked for. */
TEST(what_is_not_known_yet)
{
    open_shipped();
    struct policy *p = policy_for("npm", "");
    char authority[512];
    struct target t;
    struct verdict v;
    host_of_group("npm", authority);
    CHECK(target_from_authority(slice_str(authority), &t) == REASON_OK);
    t.scheme = SCHEME_HTTPS;
    struct question q = {.target = &t, .method = slice_str("GET"), .path = slice_str("/x"), .body = QUESTION_BODY_OPEN, .body_len = BODY_ANY_LENGTH};
    policy_decide(p, &q, &v);
    CHECK(v.action == ACTION_ALLOW && v.body_max == 0);
    q.upgrades = true;
    policy_decide(p, &q, &v);
    CHECK(v.reason == REASON_METHOD_NOT_ALLOWED);
    q = (struct question){.target = &t, .method = slice_str("POST"), .path = slice_str("/-/npm/v1/security/audits"), .body = QUESTION_BODY_OPEN, .body_len = BODY_ANY_LENGTH};
    policy_decide(p, &q, &v);
    CHECK(v.reason == REASON_METHOD_NOT_ALLOWED); /* of no type that is listed */
    q.content_type = slice_str(JSON_TYPE);
    policy_decide(p, &q, &v);
    CHECK(v.action == ACTION_ALLOW && v.body_max == MEGABYTE);
    policy_unref(p);
}

/* Storage for everybody: what one manager reads there is not open to another. */
TEST(groups_count_for_their_managers_alone)
{
    open_shipped();
    struct policy *go = policy_for("go-storage", ""), *pub = policy_for("pub-storage", "");
    struct sent own = {"go-storage", "GET", "/proxy-golang-org-prod/x", NULL, 0}, other = {"pub-storage", "GET", "/pub-packages/x", NULL, 0};
    CHECK(send_to(go, &own).action == ACTION_ALLOW && send_to(go, &other).reason == REASON_PATH_NOT_ALLOWED);
    CHECK(send_to(pub, &other).action == ACTION_ALLOW && send_to(pub, &own).reason == REASON_PATH_NOT_ALLOWED);
    CHECK_STR(send_to(go, &own).rule, "package_managers.go");
    policy_unref(go);
    policy_unref(pub);
}

static bool
is_in_a_group(const char *domain, const char *label)
{
    const char *name;
    json_t *group;
    json_object_foreach(json_object_get(shipped, "reads"), name, group) {
        json_t *labels = json_object_get(json_object_get(group, "hosts"), domain);
        for (size_t i = 0; i < json_array_size(labels); i++) {
            if (strcmp(json_string_value(json_array_get(labels, i)), label) == 0)
                return true;
        }
    }
    return false;
}

TEST(every_host_of_the_file_has_a_grammar)
{
    const char *name, *domain;
    json_t *manager, *labels;
    size_t count = 0;
    open_shipped();
    json_object_foreach(json_object_get(shipped, "managers"), name, manager) {
        json_object_foreach(json_object_get(manager, "hosts"), domain, labels) {
            for (size_t i = 0; i < json_array_size(labels); i++, count++)
                CHECK_THAT(is_in_a_group(domain, json_string_value(json_array_get(labels, i))), "%s: %s", name, domain);
        }
    }
    CHECK(count > 80);
}

#define FILE_WITH(reads) "{\"date\": \"2026-01-01\", \"managers\": {\"a\": {\"hosts\": {\"example.com\": [\"@\"]}}, \"b\": {\"hosts\": {\"example.org\": [\"@\"]}}}, \"reads\": " reads "}"
#define GROUP_WITH(rest) FILE_WITH("{\"g\": {\"date\": \"2026-01-01\", \"hosts\": {\"example.com\": [\"@\"]}, " rest "}}")
#define ENTRY(entry) GROUP_WITH("\"requests\": [{\"methods\": [\"GET\"], \"path\": \"/\"}, " entry "]")

TEST(files_with_a_grammar_that_is_none)
{
    static const struct { const char *json, *word; } rows[] = {
        {FILE_WITH("[]"), "reads: expected"}, {FILE_WITH("{\"g\": []}"), "reads.g: expected"},
        {FILE_WITH("{\"g\": {\"date\": \"soon\"}}"), "reads.g.date: expected the day"}, {FILE_WITH("{\"g\": {\"dat\": \"2026-01-01\"}}"), "\"date\""},
        {GROUP_WITH("\"requests\": []"), "reads.g.requests: expected a list of 1 to"}, {GROUP_WITH("\"requests\": {}"), "reads.g.requests: expected a list"},
        {GROUP_WITH("\"notes\": \"x\""), "reads.g.requests: expected a list"},
        {GROUP_WITH("\"managers\": [\"c\"], \"requests\": [{\"methods\": [\"GET\"], \"path\": \"/\"}]"), "reads.g.managers[0]: is no manager"},
        {GROUP_WITH("\"managers\": [\"b\"], \"requests\": [{\"methods\": [\"GET\"], \"path\": \"/\"}]"), "reads.g.hosts.example.com[0]: example.com is under"},
        {FILE_WITH("{\"g\": {\"date\": \"2026-01-01\", \"hosts\": {\"example.net\": [\"@\"]}, \"requests\": [{\"methods\": [\"GET\"], \"path\": \"/\"}]}}"), "reads.g.hosts.example.net[0]"},
        {ENTRY("{\"path\": \"/\"}"), "reads.g.requests[1].methods: expected"}, {ENTRY("{\"methods\": [], \"path\": \"/\"}"), "methods: expected"},
        {ENTRY("{\"methods\": [\"PUT\"], \"path\": \"/\"}"), "reads.g.requests[1].methods[0]: is no method that reads"},
        {ENTRY("{\"methods\": [\"get\"], \"path\": \"/\"}"), "is no method that reads"}, {ENTRY("{\"methods\": [5], \"path\": \"/\"}"), "methods[0]"},
        {ENTRY("{\"methods\": [\"GET\"]}"), "reads.g.requests[1].path: expected"}, {ENTRY("{\"methods\": [\"GET\"], \"path\": \"x\"}"), "path: expected"},
        {ENTRY("{\"methods\": [\"GET\"], \"path\": \"/(\"}"), "path: is no pattern"}, {ENTRY("{\"methods\": [\"GET\"], \"path\": \"/\", \"query\": \"[\"}"), "query: is no pattern"},
        {ENTRY("{\"methods\": [\"GET\"], \"path\": \"/\", \"body\": {}}"), "reads.g.requests[1].body: only POST"},
        {ENTRY("{\"methods\": [\"POST\"], \"path\": \"/\"}"), "reads.g.requests[1].body: is missing"},
        {ENTRY("{\"methods\": [\"GET\", \"POST\"], \"path\": \"/\", \"body\": {}}"), "list it by itself"},
        {ENTRY("{\"methods\": [\"POST\"], \"path\": \"/\", \"body\": true}"), "body: expected"},
        {ENTRY("{\"methods\": [\"POST\"], \"path\": \"/\", \"body\": {\"max_bytes\": 0}}"), "body.max_bytes"},
        {ENTRY("{\"methods\": [\"POST\"], \"path\": \"/\", \"body\": {\"max_bytes\": 99999999}}"), "body.max_bytes"},
        {ENTRY("{\"methods\": [\"POST\"], \"path\": \"/\", \"body\": {\"max_byte\": 5}}"), "\"max_bytes\""},
        {ENTRY("{\"methods\": [\"POST\"], \"path\": \"/\", \"body\": {\"types\": []}}"), "body.types: expected"},
        {ENTRY("{\"methods\": [\"POST\"], \"path\": \"/\", \"body\": {\"types\": [\"json\"]}}"), "body.types[0]: expected a media type"},
        {ENTRY("{\"methods\": [\"POST\"], \"path\": \"/\", \"body\": {\"types\": [\"Text/Plain\"]}}"), "body.types[0]"},
        {ENTRY("{\"methods\": [\"GET\"], \"paths\": \"/\"}"), "\"path\""}, {ENTRY("5"), "reads.g.requests[1]: expected"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct err err = {.kind = ERR_NONE};
        struct registries *r = registries_parse(slice_str(rows[i].json), "registries.json", &err);
        CHECK_THAT(!r && strstr(err.text, rows[i].word), "%s: %s", rows[i].json, err.text);
        registries_free(r);
    }
}

/* A pattern is held to the whole path, each of its branches too, and one that costs too much has not matched. */
TEST(patterns_match_whole_paths_or_not_at_all)
{
    static const char json[] = GROUP_WITH("\"requests\": [{\"methods\": [\"GET\"], \"path\": \"/a|/b\"}, {\"methods\": [\"GET\"], \"path\": \"/(x+x+)+y\"}]");
    struct policy_context_options o = {.registries_json = slice_str(json)};
    struct policy *p = compile_in(context_with(&o), "{\"networking\": {\"allow_package_managers\": true}}", POLICY_FILE, NULL);
    expect(p, "https example.com:443 GET /a", "allow package_managers.a");
    expect(p, "https example.com:443 GET /b?q", "allow package_managers.a");
    expect(p, "https example.com:443 GET /ab", "path_not_allowed");
    expect(p, "https example.com:443 GET /c/b", "path_not_allowed");
    expect(p, "https example.com:443 GET /a/c", "path_not_allowed");
    expect(p, "https example.com:443 GET /xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "path_not_allowed");
    expect(p, "https example.com:443 HEAD /a", "method_not_allowed");
    expect(p, "https example.org:443 GET /any%2f%2fthing", "allow package_managers.b");
    expect(p, "https example.org:443 OPTIONS /", "method_not_allowed");
    policy_unref(p);
}
