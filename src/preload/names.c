/* Paths: finding, opening, unlinking, renaming what is layered. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "preload/lib.h"

void bough_find(bough_found *found, const char *key) {
    size_t length = strlen(key);
    memset(found, 0, sizeof *found);
    found->entry = bough_entry_find(bough.shm, atomic_load(&bough.shm->gen), key, length,
                                    bough_path_hash(key, length));
    found->state =
        found->entry ? (bough_entry_state)atomic_load(&found->entry->state) : BOUGH_ENTRY_LOWER;
    unsigned n = 0;
    found->below = bough_view_below(&bough.view, key, &found->top, 1, &n);
    found->exists = found->state == BOUGH_ENTRY_HEAD ||
                    (found->state == BOUGH_ENTRY_LOWER && found->below != BOUGH_BELOW_NONE);
}

int bough_real_path(char *out, size_t size, const char *key) {
    bough_found found;
    if (bough_enter() != 0) return -1;
    bough_find(&found, key);
    int rc = 0;
    if (!found.exists) {
        errno = ENOENT;
        rc = -1;
    } else if (found.state == BOUGH_ENTRY_HEAD) {
        bough_head_path(out, size, key);
    } else if (found.below == BOUGH_BELOW_FILE) {
        bough_view_layer_path(out, size, &bough.view, found.top.layer, key);
    } else { /* a directory: the newest real one */
        bough_head_path(out, size, key);
        rc = sys_access(out, F_OK);
        for (unsigned i = 0; i < bough.view.depth && rc != 0; i++) {
            bough_view_layer_path(out, size, &bough.view, bough.view.layers[i], key);
            rc = sys_access(out, F_OK);
        }
    }
    bough_leave();
    return rc;
}

int bough_do_stat(const char *key, struct stat *st) {
    for (;;) {
        char path[2048];
        uint32_t epoch = bough_gate_epoch(bough.shm);
        if (bough_real_path(path, sizeof path, key) != 0) return -1;
        int rc = sys_stat(path, st, AT_SYMLINK_NOFOLLOW);
        if (atomic_load(&bough.shm->epoch) != epoch) continue;
        if (rc != 0) return -1;
        char again[BOUGH_LAYERED_PATH_MAX * 4];
        if (bough_classify(key, again, sizeof again) == BOUGH_PATH_PAGES && bough_enter() == 0) {
            bough_found found;
            bough_find(&found, key);
            if (found.state == BOUGH_ENTRY_HEAD)
                st->st_size = (off_t)atomic_load(&found.entry->size);
            else if (found.below == BOUGH_BELOW_FILE)
                st->st_size = (off_t)found.top.size;
            bough_leave();
        }
        st->st_mode |= S_IRUSR | S_IWUSR | (S_ISDIR(st->st_mode) ? S_IXUSR : 0);
        return 0;
    }
}

/* ---- whole files ------------------------------------------------------------------------------
 */

static bough_entry *entry_of(const char *key) {
    bough_found found;
    bough_find(&found, key);
    return bough_entry_get(bough.shm, key, strlen(key),
                           found.below == BOUGH_BELOW_FILE ? found.top.size : 0);
}

/* Name the paths that are about to change, should this process die within the call. Inside the
 * gate; end with leave(). */
static int announce(const char *key, const char *other) {
    bough_entry *before[2] = {bough.named[0], bough.named[1]};
    bough.named[0] = entry_of(key);
    bough.named[1] = other ? entry_of(other) : NULL;
    bough_changing(bough.named[0], bough.named[1]);
    for (int i = 0; i < 2; i++)
        if (before[i]) bough_entry_put(bough.shm, before[i]);
    return !bough.named[0] || (other && !bough.named[1]) ? -1 : 0;
}

static void leave(void) {
    int saved = errno;
    bough_changing(NULL, NULL);
    for (int i = 0; i < 2; i++) {
        if (bough.named[i]) bough_entry_put(bough.shm, bough.named[i]);
        bough.named[i] = NULL;
    }
    errno = saved;
    bough_leave();
}

/* A path has a file or directory of the head now; `fd` as bough_entry_make() has it. Inside the
 * gate. */
static int enter_head(const char *key, uint32_t flags, uint64_t size, int fd) {
    bough_entry *e =
        bough_entry_make(bough.shm, key, strlen(key), size, flags | BOUGH_FLAG_NEW_NAME, fd);
    if (!e) return -1;
    bough_entry_put(bough.shm, e);
    atomic_fetch_add(&bough.shm->changes, 1);
    return 0;
}

/* Copy a whole file of a layer into the head; empty where `from` is NULL. Inside the gate. */
static int copy_up(const char *key, const char *from, mode_t mode) {
    char temp[2048], path[2048], buf[8192];
    if (bough_temp_path(temp, sizeof temp, key) != 0 || announce(key, NULL) != 0) return -1;
    bough_head_path(path, sizeof path, key);
    int in = from ? sys_open(from, O_RDONLY | O_CLOEXEC, 0) : -1;
    if (from && in < 0) return -1;
    int out = sys_open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (out < 0 && errno == ENOENT && bough_make_parent(key) == 0)
        out = sys_open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    int rc = out < 0 ? -1 : 0;
    uint64_t size = 0;
    while (rc == 0 && in >= 0) {
        ssize_t n = sys_pread(in, buf, sizeof buf, (off_t)size);
        if (n < 0) rc = -1;
        if (n <= 0) break;
        for (ssize_t done = 0; rc == 0 && done < n;) {
            ssize_t put =
                sys_pwrite(out, buf + done, (size_t)(n - done), (off_t)size + (off_t)done);
            if (put == 0) errno = ENOSPC;
            if (put <= 0) rc = -1;
            done += put;
        }
        size += (uint64_t)n;
    }
    if (rc == 0 && from) rc = sys_fsync(out); /* it replaces something durable */
    if (rc == 0) rc = sys_rename(temp, path, 0);
    int saved = errno;
    if (in >= 0) sys_close(in);
    if (out >= 0) sys_close(out);
    if (rc != 0) sys_unlink(temp);
    errno = saved;
    return rc == 0 ? enter_head(key, BOUGH_FLAG_WHOLE, size, -1) : -1;
}

int bough_open_whole(const char *key, int flags, mode_t mode) {
    bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC));
    char path[2048];
    int fd = -1;
    if (strlen(key) >= BOUGH_LAYERED_PATH_MAX) {
        errno = ENAMETOOLONG;
        return -1;
    }
    if (bough_enter() != 0) return -1;
    bough_found found;
    if (writes) bough_name_lock(key);
    bough_find(&found, key);
    if (!found.exists && !(flags & O_CREAT)) {
        errno = ENOENT;
    } else if (found.exists && (flags & O_CREAT) && (flags & O_EXCL)) {
        errno = EEXIST;
    } else {
        int rc = 0;
        bough_head_path(path, sizeof path, key);
        if (!found.exists) {
            rc = copy_up(key, NULL, mode);
        } else if (found.state == BOUGH_ENTRY_LOWER) {
            bough_view_layer_path(path, sizeof path, &bough.view, found.top.layer, key);
            if (writes) {
                rc = copy_up(key, path, 0600);
                bough_head_path(path, sizeof path, key);
            }
        }
        if (rc == 0) fd = sys_open(path, (flags & ~(O_CREAT | O_EXCL)) | O_NOFOLLOW, 0);
        if (fd >= 0 && writes) {
            bough_file *f = bough_file_new(BOUGH_FILE_WHOLE, fd, flags, key);
            if (f)
                f->epoch = bough.view.epoch;
            else
                fd = -1;
        }
    }
    if (writes) bough_name_unlock(key);
    leave();
    return fd;
}

/* ---- unlink, rename, directories ----------------------------------------------------------------
 */

/* Remove a real directory that holds nothing but whiteouts, and what was being made when something
 * failed. */
static int remove_whiteouts(const char *path) {
    DIR *dir = real_opendir(path);
    if (!dir) return -1;
    struct dirent *d;
    char name[2048 + 256];
    while ((d = real_readdir(dir)) != NULL) {
        if (d->d_type != DT_LNK && !strstr(d->d_name, BOUGH_TEMP_MARK)) continue;
        (void)snprintf(name, sizeof name, "%s/%s", path, d->d_name);
        sys_unlink(name);
    }
    real_closedir(dir);
    return sys_rmdir(path);
}

/* What is being made beside a name gets this one: nothing may be there. An rmdir() that could not
 * finish may have left its directory. */
static void clear_temp(const char *temp) {
    if (sys_unlink(temp) != 0 && errno == EISDIR) (void)remove_whiteouts(temp);
}

/* A whiteout beside a name, ready to be put over it. Inside the gate. */
static int make_whiteout(char *temp, size_t size, const char *key) {
    if (bough_temp_path(temp, size, key) != 0 || bough_make_parent(key) != 0) return -1;
    clear_temp(temp);
    return sys_symlink(BOUGH_WHITEOUT, temp);
}

static int put_whiteout(const char *temp, const char *key, bool exchange) {
    char path[2048];
    bough_head_path(path, sizeof path, key);
    if (sys_rename(temp, path, exchange ? RENAME_EXCHANGE : 0) == 0) return 0;
    int saved = errno;
    sys_unlink(temp);
    errno = saved;
    return -1;
}

/* Put a whiteout under a name, over whatever is there. Inside the gate. */
static int whiteout(const char *key, bool exchange) {
    char temp[2048];
    return make_whiteout(temp, sizeof temp, key) == 0 ? put_whiteout(temp, key, exchange) : -1;
}

/* Say that a path is unlinked. Inside the gate. */
static int enter_gone(const char *key, bool hides) {
    bough_entry *e = bough_entry_get(bough.shm, key, strlen(key), 0);
    if (!e) return -1;
    if (hides) atomic_fetch_or(&e->flags, BOUGH_FLAG_WHITEOUT);
    atomic_store(&e->state, BOUGH_ENTRY_GONE);
    bough_entry_put(bough.shm, e);
    atomic_fetch_add(&bough.shm->changes, 1);
    return 0;
}

static int unlink_locked(const char *key) {
    bough_found found;
    bough_find(&found, key);
    if (!found.exists) {
        errno = ENOENT;
        return -1;
    }
    char path[2048];
    bough_head_path(path, sizeof path, key);
    if (announce(key, NULL) != 0) return -1;
    bool hides = found.below == BOUGH_BELOW_FILE;
    int rc = hides ? whiteout(key, false) : sys_unlink(path);
    return rc == 0 ? enter_gone(key, hides) : -1;
}

int bough_do_unlink(const char *key) {
    if (bough_enter() != 0) return -1;
    bough_name_lock(key);
    int rc = unlink_locked(key);
    bough_name_unlock(key);
    leave();
    return rc;
}

/* See that a whole file is the head's own. Inside the gate. */
static int detach(const char *key) {
    bough_found found;
    bough_find(&found, key);
    if (!found.exists) {
        errno = ENOENT;
        return -1;
    }
    if (found.state != BOUGH_ENTRY_LOWER) return 0;
    char from[2048];
    bough_view_layer_path(from, sizeof from, &bough.view, found.top.layer, key);
    return copy_up(key, from, 0600);
}

/* Tell the memory what a file that was renamed to `to` has: `fd` is it where it has pages, else -1.
 * Inside the gate. */
static int enter_renamed(const char *to, int fd, uint64_t size) {
    if (fd < 0) return enter_head(to, BOUGH_FLAG_WHOLE, size, -1);
    int64_t real = sys_size(fd); /* of a whole file the entry may not have it */
    return real < 0 ? -1 : enter_head(to, 0, (uint64_t)real, fd);
}

/* `f` is the source where it is divided into pages. */
static int rename_locked(bough_file *f, const char *from, const char *to, bool to_pages) {
    char from_path[2048], to_path[2048], temp[2048];
    bough_found source;
    if ((f ? bough_pages_materialise(f) : detach(from)) != 0) return -1;
    bough_head_path(from_path, sizeof from_path, from);
    bough_head_path(to_path, sizeof to_path, to);
    if (bough_make_parent(to) != 0) return -1;
    bough_find(&source, from);
    /* a whole file has no limit yet; under its new name nothing below may show through it */
    if (!f && to_pages && setxattr(from_path, BOUGH_XATTR_LIMIT, "0", 1, 0) != 0) return -1;
    bool hides = source.below == BOUGH_BELOW_FILE;
    if (announce(from, to) != 0) return -1;
    /* all that can fail comes before the rename */
    int fd = to_pages ? sys_open(from_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0) : -1;
    int rc = to_pages && fd < 0 ? -1 : 0;
    if (rc == 0 && hides) rc = make_whiteout(temp, sizeof temp, from);
    if (rc == 0 && (rc = sys_rename(from_path, to_path, 0)) != 0 && hides) {
        int saved = errno;
        sys_unlink(temp);
        errno = saved;
    }
    if (rc == 0) {
        rc = enter_renamed(to, fd, source.entry ? atomic_load(&source.entry->size) : 0);
        if (hides && put_whiteout(temp, from, false) != 0) {
            int saved = errno;
            bough_entry_forget(bough.shm, bough.named[0]); /* what is below shows again */
            errno = saved;
            rc = -1;
        } else if (enter_gone(from, hides) != 0) {
            rc = -1;
        }
    }
    int saved = errno;
    if (fd >= 0) sys_close(fd);
    errno = saved;
    return rc;
}

int bough_do_rename(const char *from, const char *to) {
    char key[BOUGH_LAYERED_PATH_MAX * 2];
    bool pages = bough_path_classify(from, key, sizeof key) == BOUGH_PATH_PAGES;
    bool to_pages = bough_path_classify(to, key, sizeof key) == BOUGH_PATH_PAGES;
    bough_file *f = NULL;
    if (strcmp(from, to) == 0) { /* nothing to do, where it exists */
        char path[2048];
        return bough_real_path(path, sizeof path, from);
    }
    if (pages) {
        int fd = bough_open_pages(from, O_RDWR | O_CLOEXEC, 0600);
        if (fd < 0) return -1;
        f = bough.files[fd];
    }
    int rc = bough_enter();
    if (rc == 0) {
        bough_names_lock(from, to);
        rc = rename_locked(f, from, to, to_pages);
        bough_names_unlock(from, to);
        leave();
    }
    if (f) {
        int saved = errno, fd = f->fd;
        bough_file_free(f);
        sys_close(fd);
        errno = saved;
    }
    return rc;
}

int bough_do_mkdir(const char *key, mode_t mode) {
    char path[2048], temp[2048];
    if (bough_enter() != 0) return -1;
    bough_found found;
    bough_name_lock(key);
    bough_find(&found, key);
    bool hidden = found.entry && (atomic_load(&found.entry->flags) & BOUGH_FLAG_WHITEOUT);
    int rc = -1;
    bough_head_path(path, sizeof path, key);
    if (hidden && bough_temp_path(temp, sizeof temp, key) == 0) clear_temp(temp);
    if (found.exists) {
        errno = EEXIST;
    } else if (announce(key, NULL) != 0) {
        rc = -1;
    } else if (!hidden) {
        rc = sys_mkdir(path, mode);
    } else if (bough_temp_path(temp, sizeof temp, key) == 0 && sys_mkdir(temp, mode) == 0) {
        rc = setxattr(temp, BOUGH_XATTR_OPAQUE, "1", 1, 0);
        if (rc == 0) rc = sys_rename(temp, path, RENAME_EXCHANGE);
        int saved = errno;
        if (rc == 0)
            sys_unlink(temp); /* the whiteout */
        else
            sys_rmdir(temp);
        errno = saved;
    }
    if (rc == 0) rc = enter_head(key, BOUGH_FLAG_DIR | (hidden ? BOUGH_FLAG_OPAQUE : 0U), 0, -1);
    bough_name_unlock(key);
    leave();
    return rc;
}

int bough_do_rmdir(const char *key) {
    char path[2048], temp[2048];
    struct stat st;
    if (bough_do_stat(key, &st) != 0) return -1;
    if (!S_ISDIR(st.st_mode)) {
        errno = ENOTDIR;
        return -1;
    }
    int empty = bough_dir_is_empty(key);
    if (empty < 0) return -1;
    if (!empty) {
        errno = ENOTEMPTY;
        return -1;
    }
    if (bough_temp_path(temp, sizeof temp, key) != 0 || bough_enter() != 0) return -1;
    bough_head_path(path, sizeof path, key);
    bough_found found;
    bough_name_lock(key);
    bough_find(&found, key);
    bool hides = found.below == BOUGH_BELOW_DIR &&
                 !(found.entry && (atomic_load(&found.entry->flags) & BOUGH_FLAG_OPAQUE));
    /* an opaque directory still has something below to hide once it is gone */
    hides = hides || (found.entry && (atomic_load(&found.entry->flags) & BOUGH_FLAG_OPAQUE));
    bool real = sys_stat(path, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
    int rc = announce(key, NULL);
    if (rc == 0 && hides) {
        rc = whiteout(key, real);
        if (rc == 0 && real) (void)remove_whiteouts(temp);
    } else if (rc == 0 && real) {
        rc = remove_whiteouts(path);
    }
    if (real) bough_entries_unmark(bough.shm, atomic_load(&bough.shm->gen), key);
    if (rc == 0) rc = enter_gone(key, hides);
    bough_name_unlock(key);
    leave();
    return rc;
}
