/* X-Forwarded-For. No state. */
#include "server/forwarded.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "model/allow.h"
#include "model/records.h"

int forwarded_trust(char *list, const char *text, bough_error *err) {
    size_t at = 0;
    list[0] = '\0';
    for (const char *rule = text; rule; rule = strchr(rule, ',') ? strchr(rule, ',') + 1 : NULL) {
        char one[128];
        size_t n = strcspn(rule, ",");
        (void)snprintf(one, sizeof one, "%.*s", (int)(n < sizeof one ? n : sizeof one - 1), rule);
        if (bough_allow_check(one, err) != BOUGH_OK)
            return bough_fail(err, BOUGH_E_USAGE, "\"%s\" is no address, network or range", one);
        if (at + n + 2 > BOUGH_ALLOW_SIZE)
            return bough_fail(err, BOUGH_E_USAGE, "too many trusted proxies");
        if (at) list[at++] = '\n';
        memcpy(list + at, one, n + 1);
        at += n;
    }
    return BOUGH_OK;
}

/* An address that may have a port: "192.0.2.1:80", "[2001:db8::1]:80", "[2001:db8::1]". */
static bool parse(char *out, const char *text, size_t size) {
    char one[INET6_ADDRSTRLEN + 10], *address = one;
    unsigned char bytes[sizeof(struct in6_addr)];
    while (size && (*text == ' ' || *text == '\t')) text++, size--;
    while (size && (text[size - 1] == ' ' || text[size - 1] == '\t')) size--;
    if (size == 0 || size >= sizeof one) return false;
    memcpy(one, text, size);
    one[size] = '\0';
    char *colon = strchr(one, ':');
    if (*one == '[') {
        char *end = strchr(one, ']');
        if (!end) return false;
        *end = '\0';
        address = one + 1;
    } else if (colon && !strchr(colon + 1, ':')) {
        *colon = '\0';
    }
    int family = strchr(address, ':') ? AF_INET6 : AF_INET;
    return inet_pton(family, address, bytes) == 1 &&
           inet_ntop(family, bytes, out, INET6_ADDRSTRLEN) != NULL;
}

bool forwarded_back(char *address, const char *line, const char *trusted) {
    for (size_t end = strlen(line);;) {
        size_t begin = end;
        char one[INET6_ADDRSTRLEN];
        if (!*trusted || !bough_allow_has(trusted, address)) return false;
        while (begin > 0 && line[begin - 1] != ',') begin--;
        if (!parse(one, line + begin, end - begin)) return false;
        memcpy(address, one, sizeof one);
        if (begin == 0) return true;
        end = begin - 1;
    }
}
