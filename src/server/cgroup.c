/* Control groups. See the kernel's Documentation/admin-guide/cgroup-v2.rst for all the files. */
#include "server/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "util/log.h"

enum {
    TEXT_MAX = 1 << 20,
    PERIOD_US = 100000, /* of cpu.max; the kernel's default */
    END_TRIES = 20,     /* processes that have ended leave their group a little later */
    END_PAUSE_NS = 5000000
};

/* "bough" in the root group, which must not become a user's. */
static const char under_root[] = "bough";

/* ---- where it is ---- */

/* Take a field that ends with a space; octal escapes are undone (\040). NULL at the end. */
static const char *take_field(char *out, size_t size, const char *text) {
    size_t n = 0;
    for (; *text && *text != ' ' && *text != '\n'; text++) {
        unsigned value = (unsigned char)*text;
        unsigned octal;
        if (*text == '\\' && sscanf(text + 1, "%3o", &octal) == 1) {
            value = octal;
            text += 3;
        }
        if (n + 1 < size) out[n++] = (char)value;
    }
    out[n] = '\0';
    return *text == ' ' ? text + 1 : NULL;
}

/* A line of mountinfo: "ID PARENT DEVICE ROOT MOUNT OPTIONS [TAG ...] - TYPE SOURCE OPTIONS". */
static bool parse_mount(char *root, char *mount, const char *line) {
    char field[BOUGH_PATH_MAX];
    for (int i = 0; line && i < 3; i++) line = take_field(field, sizeof field, line);
    if (line) line = take_field(root, BOUGH_PATH_MAX, line);
    if (line) line = take_field(mount, BOUGH_PATH_MAX, line);
    do {
        if (!line) return false;
        line = take_field(field, sizeof field, line);
    } while (strcmp(field, "-") != 0);
    if (line) (void)take_field(field, sizeof field, line);
    return line && strcmp(field, "cgroup2") == 0;
}

/* The line of version 2 has the number 0 and names no controller. */
static bool parse_own(char *path, const char *own) {
    for (const char *line = own; line; line = strchr(line, '\n')) {
        if (*line == '\n') line++;
        if (strncmp(line, "0::/", 4) != 0) continue;
        size_t n = strcspn(line + 3, "\n");
        if (n >= BOUGH_PATH_MAX) return false;
        memcpy(path, line + 3, n);
        path[n] = '\0';
        return strncmp(path, "/..", 3) != 0; /* outside of what we may see */
    }
    return false;
}

/* Whether `path` is `root` or below it. */
static bool is_below(const char *path, const char *root) {
    size_t n = strlen(root);
    if (strcmp(root, "/") == 0) return true;
    return strncmp(path, root, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

bool cgroup_find(char *out, const char *mountinfo, const char *own) {
    char path[BOUGH_PATH_MAX], root[BOUGH_PATH_MAX], mount[BOUGH_PATH_MAX];
    if (!parse_own(path, own)) return false;
    for (const char *line = mountinfo; line && *line;
         line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        if (!parse_mount(root, mount, line) || !is_below(path, root)) continue;
        const char *rest = path + (strcmp(root, "/") == 0 ? 0 : strlen(root));
        if (strcmp(rest, "/") == 0) rest = "";
        return bough_path(out, BOUGH_PATH_MAX, NULL, "%s%s", mount, rest) == BOUGH_OK;
    }
    return false;
}

bool cgroup_has(const char *list, const char *name) {
    size_t n = strlen(name);
    for (const char *at = list; (at = strstr(at, name)); at += n)
        if ((at == list || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\n' || at[n] == '\0'))
            return true;
    return false;
}

/* ---- files ---- */

/* The text of a group's file; NULL where it cannot be read. */
static char *get(const char *dir, const char *name) {
    char path[BOUGH_PATH_MAX], *data = NULL;
    size_t size;
    if (bough_path(path, sizeof path, NULL, "%s/%s", dir, name) != BOUGH_OK ||
        bough_read_file(&data, &size, path, TEXT_MAX, NULL) != BOUGH_OK)
        return NULL;
    return data;
}

/* Write to a group's file; a test's is made. 0 or errno. */
static int put(const char *dir, const char *name, const char *text, int flags) {
    char path[BOUGH_PATH_MAX];
    if (bough_path(path, sizeof path, NULL, "%s/%s", dir, name) != BOUGH_OK) return ENAMETOOLONG;
    int fd = bough_open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0644);
    if (fd < 0) return errno;
    size_t n = strlen(text);
    int failed = n && write(fd, text, n) != (ssize_t)n ? errno : 0;
    close(fd);
    return failed;
}

/* Remove an empty group. 0 or errno. */
static int remove_group(const cgroup *g, const char *path) {
    static const char *const files[] = {"cgroup.procs", "cpu.max", "memory.max"};
    char file[BOUGH_PATH_MAX];
    for (size_t i = 0; g->is_test && i < sizeof files / sizeof files[0]; i++)
        if (bough_path(file, sizeof file, NULL, "%s/%s", path, files[i]) == BOUGH_OK)
            (void)unlink(file);
    return rmdir(path) == 0 || errno == ENOENT ? 0 : errno;
}

/* ---- preparing ---- */

static void say(cgroup *g, const char *what, const char *detail) {
    (void)snprintf(g->why, sizeof g->why, "%s%s%.160s", what, *detail ? ": " : "", detail);
}

/* Whether no other process is in that group. */
static bool is_alone(const char *dir) {
    char *text = get(dir, "cgroup.procs"), *rest;
    bool alone = text != NULL;
    for (char *line = text ? strtok_r(text, "\n", &rest) : NULL; line;
         line = strtok_r(NULL, "\n", &rest))
        alone &= atol(line) == (long)getpid();
    free(text);
    return alone;
}

/* Find the group that may be divided. Returns whether we are in a group of our own there already.
 */
static bool find_base(cgroup *g, const char *test_base) {
    char *mountinfo = NULL, *own = NULL;
    bool found;
    if (test_base) {
        found = bough_path(g->base, sizeof g->base, NULL, "%s", test_base) == BOUGH_OK;
    } else {
        mountinfo = get("/proc/self", "mountinfo");
        own = get("/proc/self", "cgroup");
        found = mountinfo && own && cgroup_find(g->base, mountinfo, own);
        free(mountinfo);
        free(own);
    }
    if (!found) g->base[0] = '\0';
    if (!found) say(g, "there is no cgroup of version 2", "");
    char *slash = strrchr(g->base, '/');
    if (!found || !slash || strcmp(slash + 1, CGROUP_LEAF) != 0) return false;
    *slash = '\0';
    return true;
}

/* Let the children of a group have controllers; what has been given is in `g`. */
static void give(cgroup *g, const char *dir) {
    int cpu = put(dir, "cgroup.subtree_control", "+cpu", O_APPEND);
    int memory = put(dir, "cgroup.subtree_control", "+memory", O_APPEND);
    g->has_cpu &= cpu == 0;
    g->has_memory &= memory == 0;
    if (cpu || memory) say(g, "the group cannot be divided", strerror(cpu ? cpu : memory));
}

/* The root group: it may have processes and hand out controllers, but stays root's. */
static void use_root(cgroup *g) {
    size_t n = strlen(g->base);
    give(g, g->base);
    if (!g->has_cpu && !g->has_memory) return;
    (void)snprintf(g->base + n, sizeof g->base - n, "/%s", under_root);
    if (mkdir(g->base, 0755) == 0 || errno == EEXIST) return;
    say(g, "could not make a group", strerror(errno));
    g->has_cpu = g->has_memory = false;
}

/* Take ourselves into the leaf, so that the base can be divided. */
static void enter_leaf(cgroup *g, uid_t uid, gid_t gid, bool is_inside) {
    static const char *const ours[] = {"", "/cgroup.procs", "/cgroup.subtree_control",
                                       "/" CGROUP_LEAF, "/" CGROUP_LEAF "/cgroup.procs"};
    char leaf[BOUGH_PATH_MAX], path[BOUGH_PATH_MAX];
    int failed = bough_path(leaf, sizeof leaf, NULL, "%s/" CGROUP_LEAF, g->base) ? ENAMETOOLONG : 0;
    if (!failed && mkdir(leaf, 0755) != 0 && errno != EEXIST) failed = errno;
    if (!failed && !is_inside) failed = put(leaf, "cgroup.procs", "0", 0);
    if (failed) {
        say(g, "the group is not ours to divide", strerror(failed));
        g->has_cpu = g->has_memory = false;
        return;
    }
    give(g, g->base);
    if (!g->has_cpu && !g->has_memory) {
        if (!is_inside && put(g->base, "cgroup.procs", "0", 0) == 0) (void)remove_group(g, leaf);
        return;
    }
    for (size_t i = 0; geteuid() == 0 && i < sizeof ours / sizeof ours[0]; i++)
        if (bough_path(path, sizeof path, NULL, "%s%s", g->base, ours[i]) != BOUGH_OK ||
            chown(path, uid, gid) != 0)
            say(g, "the group could not be given away", strerror(errno));
}

/* What an earlier server left. Those in use refuse to go. */
static void remove_stale(const cgroup *g) {
    char path[BOUGH_PATH_MAX];
    DIR *dir = opendir(g->base);
    for (const struct dirent *d; dir && (d = readdir(dir));)
        if (strncmp(d->d_name, "ep-", 3) == 0 &&
            bough_path(path, sizeof path, NULL, "%s/%s", g->base, d->d_name) == BOUGH_OK)
            (void)remove_group(g, path);
    if (dir) closedir(dir);
}

void cgroup_open(cgroup *g, const char *test_base, uid_t uid, gid_t gid) {
    char path[BOUGH_PATH_MAX];
    *g = (cgroup){.is_test = test_base != NULL};
    bool is_inside = find_base(g, test_base);
    if (!*g->base) return;
    char *controllers = get(g->base, "cgroup.controllers");
    g->has_cpu = controllers && cgroup_has(controllers, "cpu");
    g->has_memory = controllers && cgroup_has(controllers, "memory");
    free(controllers);
    if (!g->has_cpu || !g->has_memory)
        say(g,
            g->has_cpu      ? "the group has no memory controller"
            : g->has_memory ? "the group has no cpu controller"
                            : "the group has neither the cpu nor the memory controller",
            g->base);
    if (!g->has_cpu && !g->has_memory) return;
    bool is_root = bough_path(path, sizeof path, NULL, "%s/cgroup.type", g->base) == BOUGH_OK &&
                   access(path, F_OK) != 0; /* which all but the root have */
    if (is_root) {
        use_root(g);
    } else if (!is_inside && !is_alone(g->base)) {
        say(g, "other processes are in the group", g->base);
        g->has_cpu = g->has_memory = false;
    }
    if (g->has_cpu || g->has_memory) enter_leaf(g, uid, gid, is_inside);
    if (g->has_cpu || g->has_memory) remove_stale(g);
}

/* ---- computes ---- */

static void warn(const char *endpoint, const char *what, int failed) {
    bough_log(BOUGH_LOG_WARN, "a compute runs without a limit", "endpoint", endpoint, "what", what,
              "error", strerror(failed), NULL);
}

void cgroup_begin(char *procs, const cgroup *g, const char *endpoint, int quarters) {
    char dir[BOUGH_PATH_MAX], text[64];
    procs[0] = '\0';
    if ((!g->has_cpu && !g->has_memory) ||
        bough_path(dir, sizeof dir, NULL, "%s/%s", g->base, endpoint) != BOUGH_OK)
        return;
    int failed = mkdir(dir, 0755) == 0 || errno == EEXIST ? 0 : errno;
    if (!failed) failed = put(dir, "cgroup.procs", "", 0); /* may we? */
    if (failed || bough_path(procs, BOUGH_PATH_MAX, NULL, "%s/cgroup.procs", dir) != BOUGH_OK) {
        warn(endpoint, "group", failed);
        return;
    }
    if (g->has_cpu) {
        (void)snprintf(text, sizeof text, "%d %d", quarters * (PERIOD_US / 4), PERIOD_US);
        failed = put(dir, "cpu.max", text, O_TRUNC);
        if (failed) warn(endpoint, "cpu.max", failed);
    }
    if (g->has_memory) {
        (void)snprintf(text, sizeof text, "%lld", (long long)quarters << 30);
        failed = put(dir, "memory.max", text, O_TRUNC);
        if (failed) warn(endpoint, "memory.max", failed);
    }
}

void cgroup_end(const cgroup *g, const char *endpoint) {
    char dir[BOUGH_PATH_MAX];
    int failed;
    if ((!g->has_cpu && !g->has_memory) ||
        bough_path(dir, sizeof dir, NULL, "%s/%s", g->base, endpoint) != BOUGH_OK)
        return;
    for (int i = 0; (failed = remove_group(g, dir)) == EBUSY && i < END_TRIES; i++) {
        struct timespec pause = {.tv_nsec = END_PAUSE_NS};
        (void)nanosleep(&pause, NULL);
    }
    if (failed)
        bough_log(BOUGH_LOG_WARN, "the group of a compute remains", "endpoint", endpoint, "error",
                  strerror(failed), NULL);
}
