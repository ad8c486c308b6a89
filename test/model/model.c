/*
 * boughd's side of the model, and its command:
 *
 *   model DIR LIBRARY COMPUTE SEED OPERATIONS          one after the other, from several processes
 *   model DIR LIBRARY COMPUTE SEED OPERATIONS apart    all at once, each worker in a world of its
 * own
 *
 * DIR is an empty directory. Everything follows from SEED, so the same command fails again. The
 * first form has seals, children to go on with, restarts, kills and faults at the nth system call,
 * audits and exports between operations; the second seals and audits while the workers work, and
 * what a child shows must be each worker's world as it was after one certain operation.
 */
#include "model.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/store.h"
#include "util/fs.h"

#define ANSWER_MS 60000

typedef struct counts {
    unsigned operations, seals, children, switches, restarts, kills, faults, audits, checks,
        exports, merges;
} counts;

typedef struct model {
    const char *dir, *library, *program;
    uint64_t seed, events;
    uint64_t rounds; /* of merging: apart, so that what a seed does otherwise stays the same */
    bough_store *store;
    bough_shm *shm;
    char branch[64];
    char plain[BOUGH_PATH_MAX];
    unsigned n_branches;
    pid_t postmaster, pids[MODEL_WORKERS];
    int control, socket[MODEL_WORKERS];
    model_world world;
    model_request request;
    model_reply reply;
    counts did;
} model;

static model m;

_Noreturn __attribute__((format(printf, 1, 2))) static void fail(const char *format, ...) {
    va_list ap;
    (void)fprintf(stderr, "model: seed %llu: ", (unsigned long long)m.seed);
    va_start(ap, format);
    (void)vfprintf(stderr, format, ap);
    va_end(ap);
    (void)fprintf(stderr, "\nmodel: on branch %s after %u operations, %u seals, %u restarts\n",
                  m.branch, m.did.operations, m.did.seals, m.did.restarts);
    if (m.postmaster > 0) (void)kill(m.postmaster, SIGKILL);
    for (int i = 0; i < MODEL_WORKERS; i++)
        if (m.pids[i] > 0) (void)kill(m.pids[i], SIGKILL);
    exit(1);
}

static void must(int rc, const bough_error *err, const char *what) {
    if (rc) fail("%s: %s", what, err->message);
}

static bool chance(unsigned of_ten_thousand) {
    return model_below(&m.events, 10000) < of_ten_thousand;
}

/* ---- the cluster that it all begins with ---- */

static void put_file(const char *name, const void *data, size_t bytes, off_t size) {
    char path[BOUGH_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/cluster/%s", m.dir, name);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, bytes) != (ssize_t)bytes || ftruncate(fd, size) != 0)
        fail("could not write %s", path);
    close(fd);
}

/* As after a clean stop: control file, WAL of one segment of 1 MiB with the last checkpoint. */
static void make_cluster(void) {
    static const char *const dirs[] = {
        "pg_wal",     "pg_wal/archive_status", "pg_logical", "pg_twophase", "pg_tblspc", "pg_stat",
        "pg_dynshmem"};
    char path[BOUGH_PATH_MAX], control[8192] = {0};
    (void)snprintf(path, sizeof path, "%s/cluster", m.dir);
    model_plain_begin(path);
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
        (void)snprintf(path, sizeof path, "%s/cluster/%s", m.dir, dirs[i]);
        if (mkdir(path, 0700) != 0) fail("could not create %s", path);
    }
    uint32_t state = 1, tli = 1; /* DB_SHUTDOWNED; offsets as in src/store/moment.c */
    uint64_t checkpoint = (UINT64_C(16) << 20) + 40;
    memcpy(control + 16, &state, sizeof state);
    memcpy(control + 32, &checkpoint, sizeof checkpoint);
    memcpy(control + 40, &checkpoint, sizeof checkpoint);
    memcpy(control + 48, &tli, sizeof tli);
    put_file("global/pg_control", control, sizeof control, sizeof control);
    put_file("PG_VERSION", "15\n", 3, 3);
    put_file("pg_wal/000000010000000000000010", "wal", 3, 1 << 20);
    (void)snprintf(m.plain, sizeof m.plain, "%s/plain-b0", m.dir);
    model_plain_begin(m.plain);
}

/* ---- the compute ---- */

static void wait_readable(int fd, const char *what) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, ANSWER_MS) != 1) fail("no answer: %s", what);
}

static void start_worker(int i) {
    int order[2] = {'S', i}, message[3] = {0};
    if (send(m.control, order, sizeof order, MSG_NOSIGNAL) < 0) fail("the compute has ended");
    while (message[0] != 'S') {
        wait_readable(m.control, "start of a worker");
        if (recv(m.control, message, sizeof message, 0) <= 0) fail("the compute has ended");
    }
    m.pids[i] = message[2];
}

static void exec_compute(int fd, int control, const int workers[]) {
    char pgdata[BOUGH_PATH_MAX], numbers[MODEL_WORKERS + 2][16];
    char *argv[MODEL_WORKERS + 3] = {(char *)(uintptr_t)m.program};
    must(bough_store_pgdata(pgdata, m.store, m.branch, NULL), NULL, "path");
    for (int i = 0; i <= MODEL_WORKERS; i++) {
        int pass = i ? workers[i - 1] : control;
        (void)fcntl(pass, F_SETFD, 0);
        (void)snprintf(numbers[i], sizeof numbers[i], "%d", pass);
        argv[i + 1] = numbers[i];
    }
    (void)snprintf(numbers[MODEL_WORKERS + 1], sizeof numbers[0], "%d", fd);
    setenv("BOUGH_SHM_FD", numbers[MODEL_WORKERS + 1], 1);
    setenv("LD_PRELOAD", m.library, 1);
    if (fcntl(fd, F_SETFD, 0) == 0 && chdir(pgdata) == 0) execv(m.program, argv);
    _exit(127);
}

static void start_compute(void) {
    int fd, control[2], workers[MODEL_WORKERS][2], theirs[MODEL_WORKERS];
    bough_error err = {0};
    must(bough_store_prepare(&m.shm, &fd, m.store, m.branch, &err), &err, "prepare");
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) != 0) fail("socketpair");
    for (int i = 0; i < MODEL_WORKERS; i++) {
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, workers[i]) != 0)
            fail("socketpair");
        theirs[i] = workers[i][1];
        m.socket[i] = workers[i][0];
    }
    m.control = control[0];
    (void)fflush(NULL);
    m.postmaster = fork();
    if (m.postmaster == 0) exec_compute(fd, control[1], theirs);
    bough_shm_set_postmaster(m.shm, m.postmaster);
    close(fd);
    close(control[1]);
    for (int i = 0; i < MODEL_WORKERS; i++) close(theirs[i]);
    for (int i = 0; i < MODEL_WORKERS; i++) start_worker(i);
    model_closed(&m.world, MODEL_ALL);
}

static void stop_compute(bool gently) {
    int order[2] = {'Q', 0};
    m.request.verb = VERB_QUIT;
    for (int i = 0; i < MODEL_WORKERS; i++) {
        if (gently)
            (void)send(m.socket[i], &m.request, sizeof m.request, MSG_NOSIGNAL);
        else
            (void)kill(m.pids[i], SIGKILL);
        int message[3] = {0};
        while (message[0] != 'D') {
            wait_readable(m.control, "end of a worker");
            if (recv(m.control, message, sizeof message, 0) <= 0) fail("the compute has ended");
        }
    }
    if (gently)
        (void)send(m.control, order, sizeof order, MSG_NOSIGNAL);
    else
        (void)kill(m.postmaster, SIGKILL);
    (void)waitpid(m.postmaster, NULL, 0);
    m.postmaster = 0;
    close(m.control);
    for (int i = 0; i < MODEL_WORKERS; i++) {
        close(m.socket[i]);
        m.pids[i] = 0;
    }
    bough_shm_close(m.shm);
    m.shm = NULL;
}

static void send_to(int worker) {
    (void)snprintf(m.request.plain, sizeof m.request.plain, "%.1000s", m.plain);
    if (send(m.socket[worker], &m.request, sizeof m.request, MSG_NOSIGNAL) < 0)
        fail("worker %d has ended", worker);
}

static void receive_from(int worker, const char *what) {
    wait_readable(m.socket[worker], what);
    if (recv(m.socket[worker], &m.reply, sizeof m.reply, 0) != (ssize_t)sizeof m.reply)
        fail("worker %d has ended: %s", worker, what);
}

static void ask(model_verb verb, int worker) {
    char what[600];
    m.request.verb = verb;
    model_describe(what, sizeof what, &m.request.op);
    if (getenv("MODEL_TRACE")) (void)fprintf(stderr, "trace: verb %d %s\n", (int)verb, what);
    send_to(worker);
    receive_from(worker, what);
    if (m.reply.status == MODEL_DIFFERS) fail("%s\n%s", what, m.reply.why);
}

/* ---- what happens between operations ---- */

static void check(void) {
    m.request.op = (model_op){.number = m.world.number};
    ask(VERB_CHECK, (int)model_below(&m.events, MODEL_WORKERS));
    m.did.checks++;
}

static void audit(void) {
    size_t files;
    bough_error err = {0};
    must(bough_store_audit(&files, m.shm, &err), &err, "audit");
    m.did.audits++;
}

static void compare_export(const char *branch, const char *plain) {
    char dest[BOUGH_PATH_MAX], why[2048];
    bough_error err = {0};
    (void)snprintf(dest, sizeof dest, "%s/export", m.dir);
    must(bough_mkdirs(dest, 0700, &err), &err, "export");
    must(bough_store_export(m.store, branch, dest, NULL, NULL, &err), &err, "export");
    if (model_compare(dest, plain, MODEL_ALL, why, sizeof why) != MODEL_SAME)
        fail("the export of %s: %s", branch, why);
    must(bough_rmtree(dest, &err), &err, "export");
    m.did.exports++;
}

static void restart(bool gently) {
    stop_compute(gently);
    start_compute();
    m.did.restarts++;
    if (chance(5000)) check();
}

/* What the housekeeper of a server does (src/server/housekeeping.c), for one branch. */
static void merge_layers(const char *branch, bough_shm *live) {
    bough_error err = {0};
    bough_tidy *tidy;
    bough_merge *merge;
    size_t layers = 0;
    must(bough_store_collect_all(m.store, &err), &err, "collect");
    must(bough_tidy_begin(&tidy, m.store, &err), &err, "tidy");
    if (bough_tidy_wants(tidy, branch, live != NULL))
        must(bough_tidy_apply(&layers, tidy, branch, live, &err), &err, "apply");
    must(bough_tidy_merge(&merge, tidy, branch, NULL, NULL, &err), &err, "merge");
    if (merge) must(bough_tidy_commit(&layers, merge, live, &err), &err, "commit");
    if (merge && layers == 0)
        fail("a merge came to nothing, though nobody was there to disturb it");
    m.did.merges += merge != NULL;
    if (getenv("MODEL_TRACE") && merge) (void)fprintf(stderr, "trace: %zu layers merged\n", layers);
    bough_tidy_drop(merge);
    bough_tidy_end(tidy);
}

/* Take a child; perhaps look at it, perhaps go on with it. */
static void seal(void) {
    char child[64], plain[BOUGH_PATH_MAX];
    bough_error err = {0};
    bough_fork_result result;
    (void)snprintf(child, sizeof child, "b%u", ++m.n_branches);
    must(bough_store_fork(&result, m.store, m.branch, child, m.shm, &err), &err, "fork");
    if (getenv("MODEL_TRACE")) (void)fprintf(stderr, "trace: seal, child %s\n", child);
    if (result.sealed) model_sealed(&m.world);
    m.did.seals += result.sealed;
    m.did.children++;
    if (chance(3000)) must(bough_store_sync(NULL, m.store, child, NULL, &err), &err, "sync");
    bool keep = chance(1500), look = keep || chance(1000);
    if (look) {
        (void)snprintf(plain, sizeof plain, "%s/plain-%s", m.dir, child);
        model_copy_tree(m.plain, plain);
        for (uint64_t i = model_below(&m.events, 30); i > 0; i--) { /* the parent goes on first */
            model_next(&m.request.op, &m.world);
            ask(VERB_DO, m.request.op.worker);
            m.did.operations++;
        }
        compare_export(child, plain);
    }
    if (!keep) {
        must(bough_store_delete(m.store, child, &err), &err, "delete");
        if (look) must(bough_rmtree(plain, &err), &err, "remove");
        if (chance(2000)) must(bough_store_purge(m.store, &err), &err, "purge");
        return;
    }
    stop_compute(chance(5000));
    compare_export(m.branch, m.plain);
    must(bough_rmtree(m.plain, &err), &err, "remove");
    (void)snprintf(m.branch, sizeof m.branch, "%s", child);
    (void)snprintf(m.plain, sizeof m.plain, "%s", plain);
    m.did.switches++;
    /* the world is as it was at the fork: learn it anew */
    for (int d = 0; d < MODEL_DIRS; d++) {
        char path[BOUGH_PATH_MAX];
        model_dir_path(path, sizeof path, m.plain, d);
        m.world.dirs[d] = access(path, F_OK) == 0;
    }
    for (int n = 0; n < model_n_names; n++) {
        uint64_t size;
        bool there = model_exists(m.plain, n, &size);
        model_correct(&m.world, n, there, size);
    }
    m.world.draining = 0;
    start_compute();
    check();
}

/* After an operation that was cut off: which of its states is it, and go on from there. */
static void resolve(const model_op *op, bool succeeded, bool killed) {
    m.request.op = *op;
    m.request.succeeded = succeeded;
    m.request.killed = killed;
    ask(VERB_RESOLVE, op->worker);
    bool of_dir = op->kind == OP_MKDIR || op->kind == OP_RMDIR;
    if (of_dir) {
        m.world.dirs[op->dir] = m.reply.dir_exists;
    } else {
        model_correct(&m.world, op->name, m.reply.exists, m.reply.size);
        if (op->kind == OP_RENAME)
            model_correct(&m.world, op->other, m.reply.other_exists, m.reply.other_size);
    }
    /* who has open what may or may not have lost its name, has nothing to compare with */
    for (int i = 0; i < MODEL_WORKERS * MODEL_SLOTS; i++) {
        model_slot *slot = &m.world.slots[i / MODEL_SLOTS][i % MODEL_SLOTS];
        bool named = slot->name == op->name || (op->kind == OP_RENAME && slot->name == op->other);
        if (named && (op->kind == OP_UNLINK || op->kind == OP_RENAME)) slot->dead = true;
    }
    if (op->kind == OP_OPEN) m.world.slots[op->worker][op->slot].open = false;
    m.world.draining = 0;
}

static bool is_suitable(const model_op *op) {
    if (op->orphan || op->kind == OP_CLOSE) return false;
    /* others that have what vanishes open would hold on to another file on the plain side */
    return op->kind != OP_RENAME || op->name != op->other;
}

static void kill_within(const model_op *op) {
    m.request.op = *op;
    m.request.nth = 1 + (long)model_below(&m.events, 8);
    m.request.verb = VERB_KILL;
    char what[600];
    model_describe(what, sizeof what, op);
    if (getenv("MODEL_TRACE"))
        (void)fprintf(stderr, "trace: verb 3 %s nth %ld\n", what, m.request.nth);
    send_to(op->worker);
    struct pollfd p[2] = {{.fd = m.socket[op->worker], .events = POLLIN},
                          {.fd = m.control, .events = POLLIN}};
    if (poll(p, 2, ANSWER_MS) <= 0) fail("no answer from an operation that is killed");
    if (p[0].revents & POLLIN) {
        receive_from(op->worker, "kill");
        resolve(op, m.reply.rc >= 0, false);
        return;
    }
    int message[3];
    if (recv(m.control, message, sizeof message, 0) <= 0) fail("the compute has ended");
    m.pids[op->worker] = 0;
    model_closed(&m.world, op->worker);
    start_worker(op->worker);
    resolve(op, false, true);
    m.did.kills++;
}

static void fault_within(const model_op *op) {
    static const int errors[] = {EIO, ENOSPC, EINTR, EMFILE, 0};
    m.request.op = *op;
    m.request.nth = 1 + (long)model_below(&m.events, 6);
    m.request.fault = errors[model_below(&m.events, sizeof errors / sizeof errors[0])];
    if (getenv("MODEL_TRACE"))
        (void)fprintf(stderr, "trace: %s at call %ld\n", strerror(m.request.fault), m.request.nth);
    ask(VERB_FAULT, op->worker);
    m.did.faults += m.reply.fired;
    if (!model_changes(op->kind)) return;
    model_op done = *op;
    bool writes = op->kind == OP_WRITE || op->kind == OP_APPEND || op->kind == OP_WHOLE_WRITE ||
                  op->kind == OP_WHOLE_PATCH;
    if (writes && m.reply.rc >= 0) done.bytes = (uint64_t)m.reply.rc; /* perhaps less */
    resolve(&done, m.reply.rc >= 0, false);
}

/* ---- one after the other ---- */

static void step(void) {
    model_op *op = &m.request.op;
    model_next(op, &m.world);
    m.did.operations++;
    model_op copy = *op;
    if (is_suitable(op) && chance(150)) {
        kill_within(&copy);
    } else if (is_suitable(op) && chance(250)) {
        fault_within(&copy);
    } else {
        ask(VERB_DO, copy.worker);
        if (m.reply.status == MODEL_ORPHAN_LOST) m.world.slots[copy.worker][copy.slot].dead = true;
        return;
    }
    if (chance(3000)) audit();
}

static void together(uint64_t operations) {
    model_world_init(&m.world, m.seed, MODEL_ALL);
    start_compute();
    while (m.did.operations < operations) {
        step();
        if (chance(60)) seal();
        if (chance(20)) restart(chance(5000));
        if (chance(40)) check();
        if (chance(40)) audit();
        if (model_below(&m.rounds, 10000) < 40) {
            merge_layers(m.branch, m.shm);
            check();
        }
    }
    check();
    audit();
    stop_compute(true);
    merge_layers(m.branch, NULL);
    compare_export(m.branch, m.plain);
}

/* ---- all at once ---- */

/* Each worker's world as it was after one certain operation, made by doing them again. */
static void compare_cut(model_world worlds[], model_hands hands[], const char *branch) {
    char dest[BOUGH_PATH_MAX], path[BOUGH_PATH_MAX], why[2048];
    bough_error err = {0};
    (void)snprintf(dest, sizeof dest, "%s/export", m.dir);
    must(bough_mkdirs(dest, 0700, &err), &err, "export");
    must(bough_store_export(m.store, branch, dest, NULL, NULL, &err), &err, "export");
    for (int i = 0; i < MODEL_WORKERS; i++) {
        uint64_t done = 0;
        (void)snprintf(path, sizeof path, "%s/global/990%d", dest, i);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && pread(fd, &done, sizeof done, 0) < 0) fail("could not read %s", path);
        if (fd >= 0) close(fd);
        model_op op = {0};
        while (worlds[i].number < done) {
            model_next(&op, &worlds[i]);
            model_do_plain(&hands[i], &op);
        }
        if (model_compare(dest, hands[i].plain, i, why, sizeof why) == MODEL_SAME) continue;
        if (worlds[i].number == done) { /* the next had been done, its number not yet written */
            model_next(&op, &worlds[i]);
            model_do_plain(&hands[i], &op);
        }
        char what[600];
        model_describe(what, sizeof what, &op);
        if (model_compare(dest, hands[i].plain, i, why, sizeof why) != MODEL_SAME)
            fail("%s shows no one moment of worker %d: after %llu operations\n%s\n%s", branch, i,
                 (unsigned long long)done, what, why);
    }
    must(bough_rmtree(dest, &err), &err, "export");
    m.did.exports++;
}

/* A layer that nothing separates from its neighbours. */
static void seal_only(void) {
    bough_error err = {0};
    char child[64];
    (void)snprintf(child, sizeof child, "s%u", ++m.n_branches);
    must(bough_store_fork(NULL, m.store, m.branch, child, m.shm, &err), &err, "fork");
    must(bough_store_delete(m.store, child, &err), &err, "delete");
    m.did.seals++;
}

/* Let all work, sealing, merging and auditing meanwhile. */
static void run_once(uint64_t count, char (*children)[64], unsigned *n, unsigned most) {
    bough_error err = {0};
    for (int i = 0; i < MODEL_WORKERS; i++) {
        m.request.verb = VERB_RUN;
        m.request.owner = i;
        m.request.seed = m.seed + (uint64_t)i;
        m.request.count = count;
        send_to(i);
    }
    struct pollfd p = {.events = POLLIN};
    for (int i = 0; i < MODEL_WORKERS; i++) {
        p.fd = m.socket[i];
        while (poll(&p, 1, 3) == 0) {
            if (*n < most) {
                (void)snprintf(children[*n], sizeof children[0], "c%u", ++m.n_branches);
                must(bough_store_fork(NULL, m.store, m.branch, children[*n], m.shm, &err), &err,
                     "fork");
                ++*n;
                m.did.seals++;
            }
            if (model_below(&m.rounds, 3) == 0) {
                for (int k = 0; k < 16; k++) seal_only();
                merge_layers(m.branch, m.shm);
            }
            if (chance(3000)) audit();
        }
        receive_from(i, "run");
        if (m.reply.status != MODEL_SAME) fail("worker %d: %s", i, m.reply.why);
        m.did.operations += (unsigned)count;
    }
}

static void apart(uint64_t operations) {
    enum { MOST = 24 };
    static model_world worlds[MODEL_WORKERS];
    static model_hands hands[MODEL_WORKERS];
    char children[MOST][64];
    unsigned n = 0;
    for (int i = 0; i < MODEL_WORKERS; i++) {
        model_world_init(&worlds[i], m.seed + (uint64_t)i, i);
        model_hands_init(&hands[i]);
        (void)snprintf(hands[i].plain, sizeof hands[i].plain, "%s/again-%d", m.dir, i);
        model_plain_begin(hands[i].plain);
    }
    start_compute();
    uint64_t batch = operations / MODEL_WORKERS / 4;
    for (int i = 0; i < 4; i++) {
        run_once(batch, children, &n, MOST * (unsigned)(i + 1) / 4);
        check();
        audit();
    }
    stop_compute(true);
    compare_export(m.branch, m.plain);
    for (unsigned i = 0; i < n; i++)
        if (model_below(&m.rounds, 2) == 0) merge_layers(children[i], NULL);
    for (unsigned i = 0; i < n; i++) compare_cut(worlds, hands, children[i]);
    m.did.children = n;
}

int main(int argc, char **argv) {
    char path[BOUGH_PATH_MAX];
    bough_error err = {0};
    if (argc < 6 || argv[1][0] != '/') {
        (void)fprintf(stderr, "usage: model DIR LIBRARY COMPUTE SEED OPERATIONS [apart]\n");
        return 64;
    }
    m.dir = argv[1];
    m.library = argv[2];
    m.program = argv[3];
    m.seed = m.events = strtoull(argv[4], NULL, 10);
    m.events = ~m.events;
    m.rounds = m.seed * 2 + 1;
    (void)snprintf(m.branch, sizeof m.branch, "b0");
    (void)snprintf(path, sizeof path, "%s/store", m.dir);
    must(bough_store_open(&m.store, path, &err), &err, "open");
    make_cluster();
    (void)snprintf(path, sizeof path, "%s/cluster", m.dir);
    must(bough_store_adopt(m.store, m.branch, path, &err), &err, "adopt");
    if (argc > 6)
        apart(strtoull(argv[5], NULL, 10));
    else
        together(strtoull(argv[5], NULL, 10));
    bough_store_close(m.store);
    printf("seed %llu: %u operations, %u seals, %u children, %u switches, %u restarts, %u kills, "
           "%u faults, %u audits, %u checks, %u exports, %u merges\n",
           (unsigned long long)m.seed, m.did.operations, m.did.seals, m.did.children,
           m.did.switches, m.did.restarts, m.did.kills, m.did.faults, m.did.audits, m.did.checks,
           m.did.exports, m.did.merges);
    return 0;
}
