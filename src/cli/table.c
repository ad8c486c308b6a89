/* Tables on standard output: columns as wide as their widest cell, two blanks between. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "cli/cli.h"
#include "util/error.h"

#define COLUMNS_MAX 16
#define CELLS_MAX 1000000

struct cli_table {
    const char *headings[COLUMNS_MAX];
    bool is_right[COLUMNS_MAX];
    size_t columns;
    char **cells; /* row by row */
    size_t count, room;
    bool has_failed; /* a cell was lost */
};

cli_table *cli_table_new(const char *const *headings) {
    cli_table *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    for (; headings[t->columns] && t->columns < COLUMNS_MAX; t->columns++) {
        const char *text = headings[t->columns];
        t->is_right[t->columns] = *text == '>';
        t->headings[t->columns] = text + (*text == '>');
    }
    return t;
}

void cli_table_add(cli_table *table, const char *text) {
    if (table->count == table->room) {
        size_t room = table->room ? table->room * 2 : 64;
        char **grown = room > CELLS_MAX ? NULL : realloc(table->cells, room * sizeof *grown);
        if (!grown) {
            table->has_failed = true;
            return;
        }
        table->cells = grown;
        table->room = room;
    }
    char *copy = strdup(text);
    if (!copy) {
        table->has_failed = true;
        return;
    }
    for (char *c = copy; *c; c++)
        if (iscntrl((unsigned char)*c)) *c = '?'; /* a name must not drive the terminal */
    table->cells[table->count++] = copy;
}

/* Columns that a text takes on the screen. */
static int width_of(const char *text) {
    mbstate_t state = {0};
    int width = 0;
    while (text[width] >= ' ' && text[width] <= '~') width++; /* as most do, to the end */
    if (!text[width]) return width;
    width = 0;
    while (*text) {
        wchar_t c;
        size_t n = mbrtowc(&c, text, strlen(text), &state);
        if (n == (size_t)-1 || n == (size_t)-2)
            return width + (int)strlen(text); /* not of this locale */
        int w = wcwidth(c);
        width += w > 0 ? w : 0;
        text += n ? n : 1;
    }
    return width;
}

static void print_cell(const char *text, int width, bool is_right, bool is_last) {
    int pad = is_last && !is_right ? 0 : width - width_of(text);
    if (!is_right) (void)fputs(text, stdout);
    while (pad-- > 0) (void)putchar_unlocked(' ');
    if (is_right) (void)fputs(text, stdout);
    (void)fputs(is_last ? "\n" : "  ", stdout);
}

int cli_table_print(const cli_table *table, bough_error *err) {
    if (table->has_failed) return bough_fail(err, BOUGH_E_NOMEM, "out of memory");
    int widths[COLUMNS_MAX] = {0};
    bool bold = cli_is_terminal() && !getenv("NO_COLOR");
    for (size_t i = 0; i < table->columns; i++) widths[i] = width_of(table->headings[i]);
    for (size_t i = 0; i < table->count; i++) {
        int width = width_of(table->cells[i]);
        if (width > widths[i % table->columns]) widths[i % table->columns] = width;
    }
    if (bold) printf("\033[1m");
    for (size_t i = 0; i < table->columns; i++) {
        bool is_last = i + 1 == table->columns;
        if (is_last && bold) {
            printf("%*s%s\033[0m\n",
                   table->is_right[i] ? widths[i] - width_of(table->headings[i]) : 0, "",
                   table->headings[i]);
            continue;
        }
        print_cell(table->headings[i], widths[i], table->is_right[i], is_last);
    }
    for (size_t i = 0; i < table->count; i++) {
        size_t column = i % table->columns;
        print_cell(table->cells[i], widths[column], table->is_right[column],
                   column + 1 == table->columns);
    }
    return BOUGH_OK;
}

void cli_table_free(cli_table *table) {
    if (!table) return;
    for (size_t i = 0; i < table->count; i++) free(table->cells[i]);
    free(table->cells);
    free(table);
}
