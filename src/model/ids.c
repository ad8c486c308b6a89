/* Ids. The words have at most six letters, so that socket paths stay short (BOUGH_ENDPOINT_ID_MAX).
 */
#include "model/ids.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

static const char adjectives[64][7] = {
    "amber", "ample",  "autumn", "bitter", "black",  "bold",   "brave",  "bright",
    "broad", "calm",   "clear",  "cold",   "cool",   "crisp",  "damp",   "dark",
    "dawn",  "deep",   "dry",    "early",  "fair",   "fallen", "fancy",  "flat",
    "fresh", "gentle", "grand",  "green",  "hidden", "holy",   "icy",    "jolly",
    "late",  "lively", "long",   "lucky",  "mellow", "misty",  "modest", "muddy",
    "noble", "old",    "orange", "pale",   "plain",  "proud",  "purple", "quiet",
    "rapid", "red",    "rough",  "round",  "royal",  "shiny",  "silent", "small",
    "snowy", "solar",  "spring", "still",  "summer", "sweet",  "wild",   "wispy"};

static const char nouns[64][7] = {
    "acorn",  "alder", "aspen", "bark",   "bay",    "beech",  "bird",  "block", "bloom",  "bough",
    "breeze", "brook", "bush",  "cedar",  "cherry", "cliff",  "cloud", "cone",  "creek",  "dew",
    "dream",  "dune",  "dust",  "elm",    "fawn",   "fern",   "field", "fire",  "flower", "fog",
    "forest", "frog",  "frost", "glade",  "grass",  "grove",  "hall",  "haze",  "heart",  "hill",
    "lake",   "leaf",  "maple", "meadow", "mist",   "moon",   "moss",  "night", "oak",    "pine",
    "pond",   "rain",  "river", "root",   "sea",    "shadow", "smoke", "snow",  "sound",  "star",
    "stream", "sun",   "tree",  "willow"};

int bough_random(void *out, size_t size, bough_error *err) {
    unsigned char *at = out;
    while (size) {
        ssize_t n = getrandom(at, size, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return bough_fail_sys(err, errno, "could not get random bytes");
        at += n;
        size -= (size_t)n;
    }
    return BOUGH_OK;
}

int bough_ids_new(char *id, bough_catalogue *cat, const char *prefix, bough_error *err) {
    for (int tries = 0; tries < 100; tries++) {
        unsigned char r[2];
        uint32_t number;
        bool found = false;
        int rc = bough_random(r, sizeof r, err);
        if (!rc) rc = bough_random(&number, sizeof number, err);
        if (rc) return rc;
        (void)snprintf(id, BOUGH_ID_SIZE, "%s%.6s-%.6s-%06u", prefix, adjectives[r[0] % 64],
                       nouns[r[1] % 64], number % 1000000);
        rc = bough_catalogue_has_id(&found, cat, id, err);
        if (rc || !found) return rc;
    }
    return bough_fail(err, BOUGH_E_INTERNAL, "no id is free");
}

int bough_ids_uuid(char *id, bough_error *err) {
    unsigned char b[16];
    int rc = bough_random(b, sizeof b, err);
    if (rc) return rc;
    b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
    int at = 0;
    for (int i = 0; i < 16; i++)
        at += snprintf(id + at, BOUGH_ID_SIZE - (size_t)at,
                       i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", b[i]);
    return BOUGH_OK;
}
