/*
 * In place of postgres: a postmaster that forks workers, which do operations as they are told.
 * Started with the preload library in PGDATA.
 *
 *   model-compute CONTROL-FD WORKER-FD...
 *
 * On the control descriptor: 'S' and a worker's number starts that worker, 'Q' ends; answers are
 * 'S' number pid, and 'D' number pid when one has died.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "model.h"

static void on_child(int sig) {
    (void)sig;
}

static model_faults faults;

static void find_faults(void) {
    *(void **)&faults.arm = dlsym(RTLD_DEFAULT, "bough_fault_arm");
    *(void **)&faults.fired = dlsym(RTLD_DEFAULT, "bough_fault_fired");
    if (!faults.arm || !faults.fired) {
        (void)fprintf(stderr, "model-compute: the library is not the test build\n");
        _exit(3);
    }
}

/* The world of this worker's own, kept from one VERB_RUN to the next. */
static void run(model_hands *h, const model_request *q, model_reply *r) {
    static model_world world;
    static bool begun;
    static uint64_t done;
    char page[MODEL_PAGE] = {0}, path[64];
    if (!begun) model_world_init(&world, model_of_seed(q->seed), q->owner);
    begun = true;
    (void)snprintf(path, sizeof path, "global/990%d", q->owner);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    for (uint64_t i = 0; i < q->count && fd >= 0; i++) {
        model_op op;
        (void)model_next(&op, &world);
        r->status = model_do(h, &op, r->why, sizeof r->why);
        if (r->status != MODEL_SAME) {
            size_t n = strlen(r->why);
            r->why[n++] = '\n';
            model_describe(r->why + n, sizeof r->why - n, &op);
            break;
        }
        done++;
        memcpy(page, &done, sizeof done);
        if (pwrite(fd, page, sizeof page, 0) != (ssize_t)sizeof page) break;
    }
    if (fd >= 0) close(fd);
    r->done = done;
}

static void shared_path(char *out, size_t size, uint64_t i) {
    (void)snprintf(out, size, "base/1/3%06llu", (unsigned long long)i);
}

static void fill_page(unsigned char page[MODEL_PAGE], const model_request *q, uint64_t i,
                      int owner) {
    memset(page, 1 + (int)((q->seed * 31 + i * 7 + (uint64_t)owner) % 255), MODEL_PAGE);
}

static void shared_failed(model_reply *r, const char *what, const char *path) {
    r->status = MODEL_DIFFERS;
    (void)snprintf(r->why, sizeof r->why, "%s of %s: %s", what, path, strerror(errno));
}

/*
 * What each worker has last written to its page of each file, and knows to be written: the seed of
 * that round, + 1; 0 for nothing. Those who come after a crash have it, too.
 */
enum { SHARED_OPEN = 4, SHARED_BYTES = MODEL_PAGE * MODEL_WORKERS };
typedef _Atomic uint64_t shared_written[MODEL_SHARED][MODEL_WORKERS];
static shared_written *written;

/* Bytes of a page that was written in an earlier round and may be written now: 0 or what it is not.
 */
static int stray_byte(const unsigned char *page, const model_request *q, uint64_t was, uint64_t i,
                      int owner) {
    static unsigned char now[MODEL_PAGE], before[MODEL_PAGE];
    model_request then = {.seed = was - 1};
    fill_page(now, q, i, owner);
    if (was)
        fill_page(before, &then, i, owner);
    else
        memset(before, 0, sizeof before);
    for (size_t k = 0; k < MODEL_PAGE; k++)
        if (page[k] != before[k] && (page[k] != now[k] || was == q->seed + 1))
            return page[k] ? page[k] : -1;
    return 0;
}

/* Whoever writes it: what was written before the read began is there, and nothing else is. */
static void look_at_shared(int fd, const model_request *q, uint64_t i, model_reply *r) {
    static unsigned char all[SHARED_BYTES];
    uint64_t was[MODEL_WORKERS];
    char path[64];
    shared_path(path, sizeof path, i);
    for (int owner = 0; owner < MODEL_WORKERS; owner++) was[owner] = (*written)[i][owner];
    ssize_t n = pread(fd, all, sizeof all, 0);
    if (n < 0) {
        shared_failed(r, "reading", path);
        return;
    }
    memset(all + n, 0, sizeof all - (size_t)n);
    for (int owner = 0; owner < MODEL_WORKERS && r->status == MODEL_SAME; owner++) {
        int stray = stray_byte(all + (size_t)owner * MODEL_PAGE, q, was[owner], i, owner);
        if (!stray) continue;
        r->status = MODEL_DIFFERS;
        (void)snprintf(r->why, sizeof r->why,
                       "%s: the page of worker %d has a %d in round %llu, and was last "
                       "written in %llu",
                       path, owner, stray > 0 ? stray : 0, (unsigned long long)q->seed,
                       (unsigned long long)was[owner] - 1);
    }
}

/* Nobody keeps another out here: as with pg_xact, whose pages are written by whom it suits. Each
 * file is looked at when it is opened, and once more when its descriptor is some files old. */
static void share(const model_request *q, model_reply *r) {
    static unsigned char page[MODEL_PAGE];
    char path[64];
    int fds[SHARED_OPEN];
    memset(fds, -1, sizeof fds);
    for (uint64_t i = 0; i < q->count + SHARED_OPEN && r->status == MODEL_SAME; i++) {
        int *fd = &fds[i % SHARED_OPEN];
        if (*fd >= 0) {
            look_at_shared(*fd, q, i - SHARED_OPEN, r);
            close(*fd);
            *fd = -1;
        }
        if (i >= q->count || r->status != MODEL_SAME) continue;
        shared_path(path, sizeof path, i);
        fill_page(page, q, i, q->owner);
        *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (*fd < 0) {
            shared_failed(r, "opening", path);
            continue;
        }
        look_at_shared(*fd, q, i, r);
        if (r->status != MODEL_SAME) continue;
        if (pwrite(*fd, page, sizeof page, (off_t)q->owner * MODEL_PAGE) != (ssize_t)sizeof page)
            shared_failed(r, "writing", path);
        else if (i % 7 == 0 && fsync(*fd) != 0)
            shared_failed(r, "fsync", path);
        (*written)[i][q->owner] = q->seed + 1;
    }
    for (int i = 0; i < SHARED_OPEN; i++)
        if (fds[i] >= 0) close(fds[i]);
}

static void check_shared(const model_request *q, model_reply *r) {
    static unsigned char page[MODEL_PAGE], found[MODEL_PAGE];
    char path[64];
    for (uint64_t i = 0; i < q->count && r->status == MODEL_SAME; i++) {
        shared_path(path, sizeof path, i);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        for (int owner = 0; fd >= 0 && owner < MODEL_WORKERS && r->status == MODEL_SAME; owner++) {
            fill_page(page, q, i, owner);
            if (pread(fd, found, sizeof found, (off_t)owner * MODEL_PAGE) !=
                    (ssize_t)sizeof found ||
                memcmp(page, found, sizeof page) != 0) {
                r->status = MODEL_DIFFERS;
                (void)snprintf(r->why, sizeof r->why, "%s: the page of worker %d is %d, not %d",
                               path, owner, found[0], page[0]);
            }
        }
        if (fd < 0) shared_failed(r, "opening", path);
        if (fd >= 0) close(fd);
        if ((q->seed + i) % 2 != 0) continue;
        if (unlink(path) != 0) shared_failed(r, "unlinking", path);
        for (int owner = 0; owner < MODEL_WORKERS; owner++) (*written)[i][owner] = 0;
    }
}

static void answer(model_hands *h, const model_request *q, model_reply *r) {
    memset(r, 0, sizeof *r);
    (void)snprintf(h->plain, sizeof h->plain, "%s", q->plain);
    switch (q->verb) {
    case VERB_DO:
        r->status = model_do(h, &q->op, r->why, sizeof r->why);
        break;
    case VERB_CHECK:
        r->status = model_compare(".", h->plain, MODEL_ALL, r->why, sizeof r->why);
        break;
    case VERB_KILL:
        faults.arm(FAULT_KILL, q->nth, 0);
        r->rc = model_do_subject(h, &q->op, &r->err);
        faults.arm(FAULT_OFF, 0, 0);
        break;
    case VERB_FAULT:
        model_do_faulty(r, h, q, &faults);
        break;
    case VERB_RESOLVE:
        model_resolve(r, h, q);
        break;
    case VERB_RUN:
        run(h, q, r);
        break;
    case VERB_SHARE:
        share(q, r);
        break;
    case VERB_SHARED:
        check_shared(q, r);
        break;
    case VERB_QUIT:
    default:
        break;
    }
}

_Noreturn static void work(int fd) {
    static model_hands h;
    static model_request q;
    static model_reply r;
    if (!getcwd(h.subject, sizeof h.subject)) _exit(2);
    model_hands_init(&h);
    while (recv(fd, &q, sizeof q, 0) == (ssize_t)sizeof q && q.verb != VERB_QUIT) {
        answer(&h, &q, &r);
        if (send(fd, &r, sizeof r, MSG_NOSIGNAL) != (ssize_t)sizeof r) break;
    }
    exit(0);
}

int main(int argc, char **argv) {
    pid_t pids[MODEL_WORKERS] = {0};
    int control = argc > 1 ? atoi(argv[1]) : -1;
    sigset_t child, none;
    struct sigaction act = {.sa_handler = on_child};
    if (argc != 2 + MODEL_WORKERS) return 64;
    find_faults();
    written =
        mmap(NULL, sizeof *written, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (written == MAP_FAILED) return 2;
    sigemptyset(&none);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    sigaction(SIGCHLD, &act, NULL);
    for (;;) {
        struct pollfd p = {.fd = control, .events = POLLIN};
        int n = ppoll(&p, 1, NULL, &none);
        pid_t dead;
        while ((dead = waitpid(-1, NULL, WNOHANG)) > 0)
            for (int i = 0; i < MODEL_WORKERS; i++)
                if (pids[i] == dead) {
                    int message[3] = {'D', i, dead};
                    pids[i] = 0;
                    (void)!send(control, message, sizeof message, MSG_NOSIGNAL);
                }
        if (n <= 0) continue;
        int order[2];
        if (recv(control, order, sizeof order, 0) != (ssize_t)sizeof order || order[0] == 'Q')
            return 0;
        pid_t pid = fork();
        if (pid == 0) {
            sigprocmask(SIG_SETMASK, &none, NULL);
            work(atoi(argv[2 + order[1]]));
        }
        pids[order[1]] = pid;
        int message[3] = {'S', order[1], pid};
        (void)!send(control, message, sizeof message, MSG_NOSIGNAL);
    }
}
