/* Between census.c, which knows names, and census_bytes.c, which knows files. */
#ifndef BOUGH_STORE_CENSUS_INTERNAL_H
#define BOUGH_STORE_CENSUS_INTERNAL_H

#include "store/census.h"
#include "store/internal.h"

/* The layer of this name; n_layers where it is not known. */
size_t bough_census_find_layer(const bough_census *census, const char *dir);
/* The branch of this id; n_branches where it is not known. */
size_t bough_census_find_branch(const bough_census *census, const char *id);
/* Walk the store and fill in all bytes. Names are known. */
int bough_census_weigh(bough_census *census, const bough_store *store, bough_error *err);

#endif
