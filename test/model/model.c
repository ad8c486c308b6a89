/*
 * boughd's side of the model, and its command:
 *
 *   model DIR LIBRARY COMPUTE SEED OPERATIONS          one after the other, from several processes
 *   model DIR LIBRARY COMPUTE SEED OPERATIONS apart    all at once, each worker in a world of its
 * own
 *   model DIR LIBRARY COMPUTE SEED OPERATIONS shared   all at once on the same files
 *
 * DIR is an empty directory. Everything follows from SEED, so the same command fails again. The
 * first form has seals, children to go on with, restarts, kills and faults at the nth system call,
 * audits and exports between operations; the second seals and audits while the workers work, and
 * what a child shows must be each worker's world as it was after one certain operation. In the
 * third all make and write the same files, with seals and merges between, and all die together at
 * times and go on in the same memory, as postgres does after a crash; its memory must not grow with
 * the seals.
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

#include "store/internal.h"
#include "util/fs.h"

#define ANSWER_MS 60000

typedef struct counts {
    unsigned operations, seals, children, switches, restarts, kills, faults, audits, checks,
        exports, merges;
} counts;

typedef struct model {
    const char *dir, *library, *program;
    uint64_t seed;
    model_source events;
    model_source rounds; /* of merging: apart, so that what a seed does otherwise stays the same */
    bough_store *store;
    bough_shm *shm;
    char branch[64];
    char plain[BOUGH_PATH_MAX];
    unsigned n_branches;
    pid_t postmaster, pids[MODEL_WORKERS];
    int control, socket[MODEL_WORKERS];
    int theirs[MODEL_WORKERS]; /* the other ends */
    model_world world;
    model_request request;
    model_reply reply;
    counts did;
} model;

static model m;

_Noreturn void model_fail(const char *format, ...) {
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

static bool chance(unsigned of_ten_thousand) {
    return model_below(&m.events, 10000) < of_ten_thousand;
}

/* ---- the compute ---- */

static void wait_readable(int fd, const char *what) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, ANSWER_MS) != 1) model_fail("no answer: %s", what);
}

static void start_worker(int i) {
    int order[2] = {'S', i}, message[3] = {0};
    if (send(m.control, order, sizeof order, MSG_NOSIGNAL) < 0) model_fail("the compute has ended");
    while (message[0] != 'S') {
        wait_readable(m.control, "start of a worker");
        if (recv(m.control, message, sizeof message, 0) <= 0) model_fail("the compute has ended");
    }
    m.pids[i] = message[2];
}

static void exec_compute(int fd, int control, const int workers[]) {
    char pgdata[BOUGH_PATH_MAX], numbers[MODEL_WORKERS + 2][16];
    char *argv[MODEL_WORKERS + 3] = {(char *)(uintptr_t)m.program};
    model_must(bough_store_pgdata(pgdata, m.store, m.branch, NULL), NULL, "path");
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
    int fd, control[2], workers[MODEL_WORKERS][2];
    bough_error err = {0};
    model_must(bough_store_prepare(&m.shm, &fd, m.store, m.branch, &err), &err, "prepare");
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) != 0)
        model_fail("socketpair");
    for (int i = 0; i < MODEL_WORKERS; i++) {
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, workers[i]) != 0)
            model_fail("socketpair");
        m.theirs[i] = workers[i][1];
        m.socket[i] = workers[i][0];
    }
    m.control = control[0];
    (void)fflush(NULL);
    m.postmaster = fork();
    if (m.postmaster == 0) exec_compute(fd, control[1], m.theirs);
    bough_shm_set_postmaster(m.shm, m.postmaster);
    close(fd);
    close(control[1]);
    for (int i = 0; i < MODEL_WORKERS; i++) start_worker(i);
    model_closed(&m.world, MODEL_ALL);
}

/* The compute tells that one of its workers has ended. */
static void await_end(void) {
    int message[3] = {0};
    while (message[0] != 'D') {
        wait_readable(m.control, "end of a worker");
        if (recv(m.control, message, sizeof message, 0) <= 0) model_fail("the compute has ended");
    }
}

static void stop_compute(bool gently) {
    int order[2] = {'Q', 0};
    m.request.verb = VERB_QUIT;
    for (int i = 0; i < MODEL_WORKERS; i++) {
        if (gently)
            (void)send(m.socket[i], &m.request, sizeof m.request, MSG_NOSIGNAL);
        else
            (void)kill(m.pids[i], SIGKILL);
        await_end();
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
        close(m.theirs[i]);
        m.pids[i] = 0;
    }
    bough_shm_close(m.shm);
    m.shm = NULL;
}

static void send_to(int worker) {
    (void)snprintf(m.request.plain, sizeof m.request.plain, "%.1000s", m.plain);
    if (send(m.socket[worker], &m.request, sizeof m.request, MSG_NOSIGNAL) < 0)
        model_fail("worker %d has ended", worker);
}

static void receive_from(int worker, const char *what) {
    wait_readable(m.socket[worker], what);
    if (recv(m.socket[worker], &m.reply, sizeof m.reply, 0) != (ssize_t)sizeof m.reply)
        model_fail("worker %d has ended: %s", worker, what);
}

static void ask(model_verb verb, int worker) {
    char what[600];
    m.request.verb = verb;
    model_describe(what, sizeof what, &m.request.op);
    if (getenv("MODEL_TRACE")) (void)fprintf(stderr, "trace: verb %d %s\n", (int)verb, what);
    send_to(worker);
    receive_from(worker, what);
    if (m.reply.status == MODEL_DIFFERS) model_fail("%s\n%s", what, m.reply.why);
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
    model_must(bough_store_audit(&files, m.shm, &err), &err, "audit");
    m.did.audits++;
}

static void compare_export(const char *branch, const char *plain) {
    model_compare_export(m.store, m.dir, branch, plain);
    m.did.exports++;
}

static void restart(bool gently) {
    stop_compute(gently);
    start_compute();
    m.did.restarts++;
    if (chance(5000)) check();
}

static void merge_layers(const char *branch, bough_shm *live) {
    size_t layers = model_merge(m.store, branch, live);
    m.did.merges += layers > 0;
    if (getenv("MODEL_TRACE") && layers)
        (void)fprintf(stderr, "trace: %zu layers merged\n", layers);
}

/* Take a child; perhaps look at it, perhaps go on with it. */
static void seal(void) {
    char child[64], plain[BOUGH_PATH_MAX];
    bough_error err = {0};
    bough_fork_result result;
    (void)snprintf(child, sizeof child, "b%u", ++m.n_branches);
    model_must(bough_store_fork(&result, m.store, m.branch, child, m.shm, &err), &err, "fork");
    if (getenv("MODEL_TRACE")) (void)fprintf(stderr, "trace: seal, child %s\n", child);
    if (result.sealed) model_sealed(&m.world);
    m.did.seals += result.sealed;
    m.did.children++;
    if (chance(3000)) model_must(bough_store_sync(m.store, child, NULL, &err), &err, "sync");
    bool keep = chance(1500), look = keep || chance(1000);
    if (look) {
        (void)snprintf(plain, sizeof plain, "%s/plain-%s", m.dir, child);
        model_copy_tree(m.plain, plain);
        for (uint64_t i = model_below(&m.events, 30); i > 0; i--) { /* the parent goes on first */
            (void)model_next(&m.request.op, &m.world);
            ask(VERB_DO, m.request.op.worker);
            m.did.operations++;
        }
        compare_export(child, plain);
    }
    if (!keep) {
        model_must(bough_store_delete(m.store, child, &err), &err, "delete");
        if (look) model_must(bough_rmtree(plain, &err), &err, "remove");
        if (chance(2000)) model_must(bough_store_purge(m.store, &err), &err, "purge");
        return;
    }
    stop_compute(chance(5000));
    compare_export(m.branch, m.plain);
    model_must(bough_rmtree(m.plain, &err), &err, "remove");
    (void)snprintf(m.branch, sizeof m.branch, "%s", child);
    (void)snprintf(m.plain, sizeof m.plain, "%s", plain);
    m.did.switches++;
    model_learn(&m.world, m.plain); /* as it was at the fork */
    start_compute();
    check();
}

/* After an operation that was cut off: which of its states is it, and go on from there. */
static void resolve(const model_op *op, bool succeeded, bool killed) {
    m.request.op = *op;
    m.request.succeeded = succeeded;
    m.request.killed = killed;
    ask(VERB_RESOLVE, op->worker);
    model_resolved(&m.world, op, &m.reply);
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
    if (poll(p, 2, ANSWER_MS) <= 0) model_fail("no answer from an operation that is killed");
    if (p[0].revents & POLLIN) {
        receive_from(op->worker, "kill");
        resolve(op, m.reply.rc >= 0, false);
        return;
    }
    int message[3];
    if (recv(m.control, message, sizeof message, 0) <= 0) model_fail("the compute has ended");
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
    model_op done = model_as_done(op, m.reply.rc);
    resolve(&done, m.reply.rc >= 0, false);
}

/* ---- one after the other ---- */

static void step(void) {
    model_op *op = &m.request.op;
    (void)model_next(op, &m.world);
    m.did.operations++;
    model_op copy = *op;
    if (model_can_be_cut(op) && chance(150)) {
        kill_within(&copy);
    } else if (model_can_be_cut(op) && chance(250)) {
        fault_within(&copy);
    } else {
        ask(VERB_DO, copy.worker);
        if (m.reply.status == MODEL_ORPHAN_LOST) m.world.slots[copy.worker][copy.slot].dead = true;
        return;
    }
    if (chance(3000)) audit();
}

static void together(uint64_t operations) {
    model_world_init(&m.world, model_of_seed(m.seed), MODEL_ALL);
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
    model_must(bough_mkdirs(dest, 0700, &err), &err, "export");
    model_must(bough_store_export(m.store, branch, dest, NULL, NULL, &err), &err, "export");
    for (int i = 0; i < MODEL_WORKERS; i++) {
        uint64_t done = 0;
        (void)snprintf(path, sizeof path, "%s/global/990%d", dest, i);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && pread(fd, &done, sizeof done, 0) < 0) model_fail("could not read %s", path);
        if (fd >= 0) close(fd);
        model_op op = {0};
        while (worlds[i].number < done) {
            (void)model_next(&op, &worlds[i]);
            model_do_plain(&hands[i], &op);
        }
        if (model_compare(dest, hands[i].plain, i, why, sizeof why) == MODEL_SAME) continue;
        if (worlds[i].number == done) { /* the next had been done, its number not yet written */
            (void)model_next(&op, &worlds[i]);
            model_do_plain(&hands[i], &op);
        }
        char what[600];
        model_describe(what, sizeof what, &op);
        if (model_compare(dest, hands[i].plain, i, why, sizeof why) != MODEL_SAME)
            model_fail("%s shows no one moment of worker %d: after %llu operations\n%s\n%s", branch,
                       i, (unsigned long long)done, what, why);
    }
    model_must(bough_rmtree(dest, &err), &err, "export");
    m.did.exports++;
}

/* A layer that nothing separates from its neighbours. */
static void seal_only(void) {
    bough_error err = {0};
    char child[64];
    (void)snprintf(child, sizeof child, "s%u", ++m.n_branches);
    model_must(bough_store_fork(NULL, m.store, m.branch, child, m.shm, &err), &err, "fork");
    model_must(bough_store_delete(m.store, child, &err), &err, "delete");
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
                model_must(bough_store_fork(NULL, m.store, m.branch, children[*n], m.shm, &err),
                           &err, "fork");
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
        if (m.reply.status != MODEL_SAME) model_fail("worker %d: %s", i, m.reply.why);
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
        model_world_init(&worlds[i], model_of_seed(m.seed + (uint64_t)i), i);
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

/* ---- on the same files ---- */

static void share_begin(uint64_t round, uint64_t files) {
    for (int i = 0; i < MODEL_WORKERS; i++) {
        m.request.verb = VERB_SHARE;
        m.request.owner = i;
        m.request.seed = m.seed + round;
        m.request.count = files;
        send_to(i);
    }
}

/* All die at once, wherever they are, and begin anew in the same memory. */
static void crash(void) {
    for (int i = 0; i < MODEL_WORKERS; i++) (void)kill(m.pids[i], SIGKILL);
    for (int i = 0; i < MODEL_WORKERS; i++) await_end();
    for (int i = 0; i < MODEL_WORKERS; i++) { /* what it had answered before is of no interest */
        while (recv(m.socket[i], &m.reply, sizeof m.reply, MSG_DONTWAIT) > 0) continue;
        while (recv(m.theirs[i], &m.request, sizeof m.request, MSG_DONTWAIT) > 0) continue;
        start_worker(i);
    }
    m.did.kills += MODEL_WORKERS;
}

static void share_once(uint64_t round, uint64_t files) {
    bool dies = chance(1500);
    share_begin(round, files);
    if (dies) {
        struct pollfd p = {.fd = m.socket[0], .events = POLLIN};
        (void)poll(&p, 1, (int)model_below(&m.events, 8));
        crash();
        share_begin(round, files);
    }
    for (int i = 0; i < MODEL_WORKERS; i++) {
        struct pollfd p = {.fd = m.socket[i], .events = POLLIN};
        while (poll(&p, 1, 1) == 0) {
            if (chance(3000)) seal_only();
            if (chance(500)) audit();
            if (chance(500)) merge_layers(m.branch, m.shm);
        }
        receive_from(i, "share");
        if (m.reply.status != MODEL_SAME) model_fail("worker %d: %s", i, m.reply.why);
        m.did.operations += (unsigned)files;
    }
    if (chance(5000)) seal_only();
    m.request.op = (model_op){.number = round};
    ask(VERB_SHARED, (int)(round % MODEL_WORKERS));
    m.did.checks++;
}

static void shared(uint64_t operations) {
    enum { WARM = 20 };
    uint64_t warm = 0;
    start_compute();
    for (uint64_t round = 0; m.did.operations < operations; round++) {
        share_once(round, MODEL_SHARED);
        if (round == WARM) warm = atomic_load(&m.shm->header->used);
    }
    audit();
    /* who was killed keeps what it held: a file or two */
    uint64_t used = atomic_load(&m.shm->header->used),
             most = warm * 2 + m.did.kills * UINT64_C(8192);
    if (warm && used > most)
        model_fail("the memory grew from %llu bytes to %llu with %u seals",
                   (unsigned long long)warm, (unsigned long long)used, m.did.seals);
    stop_compute(true);
    merge_layers(m.branch, NULL);
}

int main(int argc, char **argv) {
    char path[BOUGH_PATH_MAX];
    bough_error err = {0};
    if (argc < 6 || argv[1][0] != '/') {
        (void)fprintf(stderr, "usage: model DIR LIBRARY COMPUTE SEED OPERATIONS [apart|shared]\n");
        return 64;
    }
    m.dir = argv[1];
    m.library = argv[2];
    m.program = argv[3];
    m.seed = strtoull(argv[4], NULL, 10);
    m.events = model_of_seed(~m.seed);
    m.rounds = model_of_seed(m.seed * 2 + 1);
    (void)snprintf(m.branch, sizeof m.branch, "b0");
    (void)snprintf(path, sizeof path, "%s/store", m.dir);
    model_must(bough_store_open(&m.store, path, &err), &err, "open");
    model_make_cluster(m.dir);
    (void)snprintf(m.plain, sizeof m.plain, "%s/plain-b0", m.dir);
    model_plain_begin(m.plain);
    (void)snprintf(path, sizeof path, "%s/cluster", m.dir);
    model_must(bough_store_adopt(m.store, m.branch, path, &err), &err, "adopt");
    if (argc > 6 && strcmp(argv[6], "shared") == 0)
        shared(strtoull(argv[5], NULL, 10));
    else if (argc > 6)
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
