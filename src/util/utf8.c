/* UTF-8. See utf8.h. */
#include "util/utf8.h"

#include <string.h>

/* Bytes of the character that begins with `c`; 0 where none does. */
static size_t length_of(unsigned char c) {
    return c < 0x80                ? 1
           : c >= 0xc2 && c < 0xe0 ? 2
           : c >= 0xe0 && c < 0xf0 ? 3
           : c >= 0xf0 && c < 0xf5 ? 4
                                   : 0;
}

size_t bough_utf8_length(const char *text, size_t size) {
    const unsigned char *s = (const unsigned char *)text;
    size_t n = length_of(*s);
    if (n > size) return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    bool too_long = (*s == 0xe0 && s[1] < 0xa0) || (*s == 0xf0 && s[1] < 0x90);
    bool too_high = *s == 0xf4 && s[1] >= 0x90, is_surrogate = *s == 0xed && s[1] >= 0xa0;
    return too_long || too_high || is_surrogate ? 0 : n;
}

bool bough_utf8_is(const char *text) {
    size_t n = 1;
    for (; *text && n; text += n) n = bough_utf8_length(text, 4);
    return n > 0;
}

void bough_utf8_cut(char *text) {
    size_t size = strlen(text), begin = size;
    while (begin > 0 && size - begin < 3 && ((unsigned char)text[begin - 1] & 0xc0) == 0x80)
        begin--;
    if (begin > 0 && length_of((unsigned char)text[begin - 1]) > size - begin + 1)
        text[begin - 1] = '\0';
}

void bough_utf8_mend(char *out, size_t size, const char *text) {
    static const char replacement[] = "\xef\xbf\xbd";
    size_t at = 0;
    while (*text) {
        size_t n = bough_utf8_length(text, 4), more = n ? n : sizeof replacement - 1;
        if (at + more >= size) break;
        memcpy(out + at, n ? text : replacement, more);
        at += more;
        text += n ? n : 1;
    }
    out[at] = '\0';
}
