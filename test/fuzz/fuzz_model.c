/*
 * libFuzzer target: the model of file calls (test/model) with operations of the input's making. Its
 * bytes choose, one after the other, operations of three processes of a compute on files of a
 * branch, and what happens between them: seals, children, restarts, merges, processes that are
 * killed, calls that fail. All of it is done by the library and the store themselves, within this
 * process, so that the fuzzer sees which of their code ran (inside.h).
 *
 * The same operations are done on a plain directory: what comes back must be equal, and so must be
 * all that both show at the end. Where something differs, it says what and traps; MODEL_TRACE in
 * the environment shows all that was done, MODEL_KEEP keeps the directory.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz/bytes.h"
#include "fuzz/fuzz.h"
#include "model/inside.h"
#include "store/internal.h"
#include "util/log.h"

#define PREFIX "bough-fuzz-model-"
#define MOST_BYTES 4096  /* of an input; the rest is not looked at */
#define MOST_BRANCHES 40 /* that an input makes */

void bough_fault_arm(int action, long nth, int err);
bool bough_fault_fired(void);

typedef struct run {
    bough_shm *shm;
    char branch[16], child[16]; /* child: one that is looked at later; its name, or "" */
    bool plain_is_second;       /* the plain side is the one that was the child's */
    bool looks_at_all;          /* checks look at all names */
    unsigned n_branches;
    model_world world;
    model_hands hands[MODEL_WORKERS];
    model_request request;
    model_reply reply;
} run;

static run r;
static bough_store *store; /* of all inputs */
static char dir[64], store_dir[80], home[BOUGH_PATH_MAX];
static bool traces, keeps;
static int first_fd;     /* what an input opens is not below */
static bool touched[64]; /* names that the plain side must get anew */
static const char *const rooms[] = {"store/branches", "store/layers", "store/trash", "plain-2"};
static const model_faults faults = {bough_fault_arm, bough_fault_fired};

#define TRACE(...)                                                                                 \
    do {                                                                                           \
        if (traces) (void)fprintf(stderr, __VA_ARGS__);                                            \
    } while (0)

static void clean_up(void) {
    bough_store_close(store);
    store = NULL;
    if (chdir(home) != 0) return;
    if (!keeps) bough_ignore(bough_rmtree(dir, NULL));
}

_Noreturn void model_fail(const char *format, ...) {
    char what[600];
    va_list ap;
    va_start(ap, format);
    (void)fprintf(stderr, "model: ");
    (void)vfprintf(stderr, format, ap);
    va_end(ap);
    model_describe(what, sizeof what, &r.request.op);
    (void)fprintf(stderr, "\nmodel: on branch %s; last was %s\n", r.branch, what);
    clean_up();
    __builtin_trap();
}

/* ---- where it all happens, and how an input begins with the same ---- */

/* Directories of processes that have ended without cleaning up. */
static void remove_old(const char *in) {
    char path[BOUGH_PATH_MAX];
    DIR *d = opendir(in);
    if (!d) return;
    const struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        if (strncmp(e->d_name, PREFIX, strlen(PREFIX)) != 0) continue;
        int pid = atoi(e->d_name + strlen(PREFIX));
        if (pid <= 0 || kill(pid, 0) == 0 || errno != ESRCH) continue;
        (void)snprintf(path, sizeof path, "%s/%s", in, e->d_name);
        bough_ignore(bough_rmtree(path, NULL));
    }
    closedir(d);
}

static const char *in_dir(const char *name) {
    static char paths[4][BOUGH_PATH_MAX];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    (void)snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

/* What may be written is copied, what may not (and WAL, which is not) is the same file. */
static void put_file(const char *from, const char *to, bool shared, off_t size) {
    char buf[16384];
    if (shared || size > (off_t)sizeof buf) {
        if (link(from, to) != 0) model_fail("could not link %s", to);
        return;
    }
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ssize_t n = in < 0 || out < 0 ? -1 : read(in, buf, sizeof buf);
    if (n < 0 || write(out, buf, (size_t)n) != n) model_fail("could not copy %s", to);
    close(in);
    close(out);
}

static void put_tree(const char *from, const char *to, bool shared) {
    char path[BOUGH_PATH_MAX], copy[BOUGH_PATH_MAX];
    struct stat st;
    DIR *d = mkdir(to, 0700) == 0 ? opendir(from) : NULL;
    if (!d) model_fail("could not make %s", to);
    const struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        (void)snprintf(path, sizeof path, "%s/%s", from, e->d_name);
        (void)snprintf(copy, sizeof copy, "%s/%s", to, e->d_name);
        if (lstat(path, &st) != 0) model_fail("could not stat %s", path);
        if (S_ISDIR(st.st_mode))
            put_tree(path, copy, shared);
        else
            put_file(path, copy, shared, st.st_size);
    }
    closedir(d);
}

#define FIRST_LAYER "layers/b0/00000001"

/* What all inputs share may not have been written: it is of a sealed layer. */
static void check_first_layer(bool is_first_time) {
    static struct stat was[64];
    char path[BOUGH_PATH_MAX];
    for (int n = 0; n < model_n_names; n++) {
        struct stat st;
        model_path(path, sizeof path, in_dir("first/" FIRST_LAYER "/data"), n);
        if (stat(path, &st) != 0) continue;
        if (is_first_time) was[n] = st;
        if (st.st_size != was[n].st_size || st.st_mtim.tv_sec != was[n].st_mtim.tv_sec ||
            st.st_mtim.tv_nsec != was[n].st_mtim.tv_nsec)
            model_fail("a file of a sealed layer was written: %s", path);
    }
}

/* The directory of the first layer goes from one input to the next, unless something was put into
 * it, or taken. */
typedef struct layer_times {
    struct timespec of[MODEL_DIRS + 2];
} layer_times;
static layer_times put_at;

static void look_at_layer(layer_times *at) {
    char path[BOUGH_PATH_MAX];
    memset(at, 0, sizeof *at);
    for (int i = 0; i < MODEL_DIRS + 2; i++) {
        struct stat st;
        (void)snprintf(path, sizeof path, "%s%s%s", in_dir("store/" FIRST_LAYER), i ? "/data/" : "",
                       i > 1 ? model_dirs[i - 2] : "");
        if (stat(path, &st) == 0) at->of[i] = st.st_mtim;
    }
}

static void put_layer(void) {
    model_must(bough_mkdirs(in_dir("store/layers/b0"), 0700, NULL), &(bough_error){0}, "layers");
    if (rename(in_dir("layer"), in_dir("store/" FIRST_LAYER)) == 0) return;
    put_tree(in_dir("first/" FIRST_LAYER), in_dir("store/" FIRST_LAYER), true);
    look_at_layer(&put_at);
}

static void take_layer(void) {
    layer_times now;
    look_at_layer(&now);
    if (memcmp(&now, &put_at, sizeof now) != 0) return;
    if (rename(in_dir("store/" FIRST_LAYER), in_dir("layer")) != 0)
        model_fail("could not take the first layer");
}

static void set_up(void) {
    static bool is_done;
    bough_error err = {0};
    if (is_done) return;
    is_done = true;
    traces = getenv("MODEL_TRACE") != NULL;
    keeps = getenv("MODEL_KEEP") != NULL;
    bough_log_init(BOUGH_LOG_ERROR, false);
    const char *in = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/var/tmp";
    remove_old(in);
    (void)snprintf(dir, sizeof dir, "%s/" PREFIX "%d", in, (int)getpid());
    (void)snprintf(store_dir, sizeof store_dir, "%s/store", dir);
    if (!getcwd(home, sizeof home) || mkdir(dir, 0700) != 0) abort();
    (void)atexit(clean_up);
    model_must(bough_store_open(&store, store_dir, &err), &err, "open");
    model_make_cluster(dir);
    model_must(bough_store_adopt(store, "b0", in_dir("cluster"), &err), &err, "adopt");
    if (mkdir(in_dir("first"), 0700) != 0) model_fail("could not make %s", in_dir("first"));
    if (rename(in_dir("store/branches"), in_dir("first/branches")) != 0 ||
        rename(in_dir("store/layers"), in_dir("first/layers")) != 0)
        model_fail("could not rename in %s", dir);
    check_first_layer(true);
    model_plain_begin(in_dir("plain"));
    first_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (first_fd < 0) abort();
    close(first_fd);
}

static const char *plain(void) {
    return in_dir(r.plain_is_second ? "plain-2" : "plain");
}

/* The plain side, where the last input has left it: only what that touched is made anew. */
static void reset_plain(void) {
    char path[BOUGH_PATH_MAX];
    model_world begun;
    model_world_init(&begun, model_of_seed(0), MODEL_ALL);
    for (int d = 0; d < MODEL_DIRS; d++) {
        model_dir_path(path, sizeof path, in_dir("plain"), d);
        if (begun.dirs[d]) (void)mkdir(path, 0700);
    }
    for (int n = 0; n < model_n_names; n++) {
        if (touched[n] && (begun.files[n] || model_exists(in_dir("plain"), n, &(uint64_t){0})))
            model_plain_name(in_dir("plain"), n);
        touched[n] = false;
    }
    for (int d = 0; d < MODEL_DIRS; d++) {
        model_dir_path(path, sizeof path, in_dir("plain"), d);
        if (!begun.dirs[d]) (void)rmdir(path);
    }
}

static void start_compute(void) {
    char pgdata[BOUGH_PATH_MAX];
    int fd;
    bough_error err = {0};
    model_must(bough_store_prepare(&r.shm, &fd, store, r.branch, &err), &err, "prepare");
    close(fd);
    bough_shm_set_postmaster(r.shm, model_postmaster());
    model_must(bough_store_pgdata(pgdata, store, r.branch, &err), &err, "path");
    if (chdir(pgdata) != 0) model_fail("could not go to %s", pgdata);
    for (int i = 0; i < MODEL_WORKERS; i++) {
        (void)snprintf(r.hands[i].subject, sizeof r.hands[i].subject, "%.1000s", pgdata);
        (void)snprintf(r.hands[i].plain, sizeof r.hands[i].plain, "%.1000s", plain());
        if (model_inside_begin(i, r.shm->header) != 0) model_fail("a process could not begin");
    }
    model_closed(&r.world, MODEL_ALL);
}

static void end_worker(int i, bool gently) {
    model_inside_end(i, gently);
    for (int s = 0; s < MODEL_SLOTS; s++) r.hands[i].subject_fd[s] = -1; /* with it */
    model_hands_close(&r.hands[i]);
}

static void stop_compute(bool gently) {
    for (int i = 0; i < MODEL_WORKERS; i++) end_worker(i, gently);
    if (chdir(home) != 0) abort();
    bough_shm_close(r.shm);
    r.shm = NULL;
}

static void begin(const uint8_t *data, size_t size) {
    bough_error err = {0};
    set_up();
    memset(&r, 0, sizeof r);
    (void)snprintf(r.branch, sizeof r.branch, "b0");
    for (int i = 0; i < MODEL_WORKERS; i++) model_hands_init(&r.hands[i]);
    for (size_t i = 0; i < sizeof rooms / sizeof rooms[0]; i++)
        model_must(bough_rmtree(in_dir(rooms[i]), &err), &err, "remove");
    if (mkdir(in_dir("store/trash"), 0700) != 0) model_fail("could not make the trash");
    put_tree(in_dir("first/branches"), in_dir("store/branches"), false);
    put_layer();
    reset_plain();
    for (size_t i = 0; i < store->n_verified; i++) free(store->verified[i]);
    store->n_verified = 0;
    model_world_init(&r.world, model_of_bytes(data, size), MODEL_ALL);
    model_inside_reset();
    start_compute();
}

static void end(void) {
    check_first_layer(false);
    take_layer();
    (void)close_range((unsigned)first_fd, ~0U, 0); /* what killed processes had */
}

/* ---- what the processes do ---- */

/* Where little has happened, only what that was about. */
static model_status compare(const model_hands *h) {
    char *why = r.reply.why;
    if (r.looks_at_all) return model_compare(".", h->plain, MODEL_ALL, why, sizeof r.reply.why);
    for (int n = 0; n < model_n_names; n++)
        if (touched[n] &&
            model_compare_name(".", h->plain, n, why, sizeof r.reply.why) != MODEL_SAME)
            return MODEL_DIFFERS;
    return MODEL_SAME;
}

static void in_worker(void *context) {
    model_request *q = &r.request;
    model_hands *h = context;
    switch (q->verb) {
    case VERB_DO:
        r.reply.status = model_do(h, &q->op, r.reply.why, sizeof r.reply.why);
        break;
    case VERB_CHECK:
        r.reply.status = compare(h);
        break;
    case VERB_KILL:
        bough_fault_arm(FAULT_KILL, q->nth, 0);
        r.reply.rc = model_do_subject(h, &q->op, &r.reply.err);
        break;
    case VERB_FAULT:
        model_do_faulty(&r.reply, h, q, &faults);
        break;
    case VERB_RESOLVE:
        model_resolve(&r.reply, h, q);
        break;
    case VERB_RUN:
    case VERB_SHARE:
    case VERB_SHARED:
    case VERB_QUIT:
    default:
        break;
    }
}

/* False: the process was killed in the middle. */
static bool ask(model_verb verb, int worker) {
    char what[600];
    r.request.verb = verb;
    model_describe(what, sizeof what, &r.request.op);
    TRACE("trace: verb %d %s\n", (int)verb, what);
    memset(&r.reply, 0, offsetof(model_reply, why));
    r.reply.why[0] = '\0';
    bool lives = model_inside_call(worker, verb == VERB_KILL, in_worker, &r.hands[worker]);
    bough_fault_arm(FAULT_OFF, 0, 0);
    if (r.reply.status == MODEL_DIFFERS) model_fail("%s", r.reply.why);
    return lives;
}

static void resolve(const model_op *op, bool succeeded, bool killed) {
    r.request.op = *op;
    r.request.succeeded = succeeded;
    r.request.killed = killed;
    ask(VERB_RESOLVE, op->worker);
    model_resolved(&r.world, op, &r.reply);
}

static void new_worker(int i) {
    end_worker(i, false);
    if (model_inside_begin(i, r.shm->header) != 0) model_fail("a process could not begin");
    model_closed(&r.world, i);
}

static void kill_within(void) {
    model_op op = r.request.op;
    r.request.nth = 1 + (long)model_below(&r.world.source, 10);
    TRACE("trace: killed at call %ld\n", r.request.nth);
    if (ask(VERB_KILL, op.worker)) {
        resolve(&op, r.reply.rc >= 0, false);
        return;
    }
    new_worker(op.worker);
    resolve(&op, false, true);
}

static void fault_within(void) {
    static const int errors[] = {EIO, ENOSPC, EINTR, EMFILE, 0, 0}; /* 0: a part of it is done */
    model_op op = r.request.op;
    r.request.nth = 1 + (long)model_below(&r.world.source, 6);
    r.request.fault = errors[model_below(&r.world.source, sizeof errors / sizeof errors[0])];
    TRACE("trace: %s at call %ld\n", r.request.fault ? strerror(r.request.fault) : "cut short",
          r.request.nth);
    ask(VERB_FAULT, op.worker);
    if (!model_changes(op.kind)) return;
    op = model_as_done(&op, r.reply.rc);
    resolve(&op, r.reply.rc >= 0, false);
}

static void next(model_verb verb) {
    model_op *op = &r.request.op;
    if (!model_next(op, &r.world)) return;
    bool of_file = op->kind != OP_LIST && op->kind != OP_MKDIR && op->kind != OP_RMDIR;
    touched[op->name] = touched[op->name] || (of_file && model_changes(op->kind));
    if (op->kind == OP_RENAME) touched[op->other] = true;
    if (verb == VERB_KILL && model_can_be_cut(op)) {
        kill_within();
    } else if (verb == VERB_FAULT && model_can_be_cut(op)) {
        fault_within();
    } else {
        ask(VERB_DO, op->worker);
        if (r.reply.status == MODEL_ORPHAN_LOST) r.world.slots[op->worker][op->slot].dead = true;
    }
}

/* ---- what happens between ---- */

static void check(int worker) {
    r.request.op = (model_op){.number = r.world.number, .worker = worker};
    ask(VERB_CHECK, worker);
}

static void audit(void) {
    size_t files;
    bough_error err = {0};
    model_must(bough_store_audit(&files, r.shm, &err), &err, "audit");
}

static void drop_child(void) {
    bough_error err = {0};
    if (!r.child[0]) return;
    model_compare_export(store, dir, r.child, in_dir("plain-2"));
    model_must(bough_store_delete(store, r.child, &err), &err, "delete");
    model_must(bough_rmtree(in_dir("plain-2"), &err), &err, "remove");
    r.child[0] = '\0';
}

/* Make a child. `looks`: compare it when much has happened in its parent. */
static void seal(bool looks, bool syncs) {
    char child[16];
    bough_error err = {0};
    bough_fork_result result;
    if (r.n_branches == MOST_BRANCHES) return;
    (void)snprintf(child, sizeof child, "b%u", ++r.n_branches);
    model_must(bough_store_fork(&result, store, r.branch, child, r.shm, &err), &err, "fork");
    TRACE("trace: child %s, %ssealed\n", child, result.sealed ? "" : "not ");
    if (result.sealed) model_sealed(&r.world);
    if (syncs) model_must(bough_store_sync(store, child, NULL, &err), &err, "sync");
    if (!looks || r.plain_is_second) {
        model_must(bough_store_delete(store, child, &err), &err, "delete");
        return;
    }
    drop_child();
    (void)snprintf(r.child, sizeof r.child, "%s", child);
    model_copy_tree(plain(), in_dir("plain-2"));
}

/* Leave the parent for the child that is looked at. */
static void go_on_with_child(bool gently) {
    if (!r.child[0]) seal(true, false);
    if (!r.child[0]) return;
    TRACE("trace: %s is left for %s\n", r.branch, r.child);
    stop_compute(gently);
    model_compare_export(store, dir, r.branch, plain());
    (void)snprintf(r.branch, sizeof r.branch, "%s", r.child);
    r.child[0] = '\0';
    r.plain_is_second = true;
    model_learn(&r.world, plain());
    start_compute();
}

/* `forks`: it gets a child while nothing runs on it. */
static void restart(bool gently, bool forks) {
    TRACE("trace: restart, %s\n", gently ? "gently" : "killed");
    stop_compute(gently);
    if (forks) seal(true, false);
    start_compute();
}

/* Of what is merged for the branch, its child makes use where it can. */
static void merge(void) {
    size_t layers = model_merge(store, r.branch, r.shm);
    TRACE("trace: %zu layers merged\n", layers);
    if (layers && r.child[0]) (void)model_merge(store, r.child, NULL);
}

static void step(void) {
    model_source *s = &r.world.source;
    uint64_t what = model_below(s, 64), n;
    switch (what) {
    case 50:
    case 51:
    case 52:
        next(VERB_FAULT);
        break;
    case 53:
    case 54:
        next(VERB_KILL);
        break;
    case 55:
    case 56:
        seal(false, false);
        break;
    case 57:
        n = model_below(s, 2);
        seal(true, n);
        break;
    case 58:
        n = model_below(s, 2);
        go_on_with_child(n);
        break;
    case 59:
        n = model_below(s, 4);
        restart(n & 1, n & 2);
        break;
    case 60:
        merge();
        break;
    case 61:
        r.looks_at_all = true;
        check((int)model_below(s, MODEL_WORKERS));
        audit();
        break;
    case 62:
        new_worker((int)model_below(s, MODEL_WORKERS));
        break;
    case 63:
        n = model_below(s, MODEL_WORKERS);
        model_inside_limit((int)n, (unsigned)model_below(s, 4));
        break;
    default:
        next(VERB_DO);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    begin(data, size < MOST_BYTES ? size : MOST_BYTES);
    while (!model_is_at_end(&r.world.source)) step();
    r.looks_at_all = r.n_branches && r.world.number % 2;
    check((int)(r.world.number % MODEL_WORKERS));
    audit();
    stop_compute(r.world.number % 2);
    drop_child();
    if (r.world.number % 4 == 0) /* the dearest part */
        model_compare_export(store, dir, r.branch, plain());
    end();
    return 0;
}
