/**
 * Errors: one way for the whole of Bough.
 *
 * A function that can fail returns an int: BOUGH_OK (0) or one of the negative codes below; details
 * go to the caller's bough_error. One table (bough_code_info()) maps a code to its slug, HTTP
 * status, exit status and SQLSTATE.
 */
#ifndef BOUGH_ERROR_H
#define BOUGH_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

#define BOUGH_CHECK __attribute__((warn_unused_result))
#define BOUGH_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define BOUGH_API __attribute__((visibility("default")))

/** Result codes. Zero is success; the numbers are part of the ABI. */
enum {
    BOUGH_OK = 0,
    BOUGH_E_NOMEM = -1,         /**< memory ran out */
    BOUGH_E_SYS = -2,           /**< the operating system refused; see sys_errno */
    BOUGH_E_INVALID = -3,       /**< what was asked for breaks a rule */
    BOUGH_E_NOTFOUND = -4,      /**< no such thing */
    BOUGH_E_CONFLICT = -5,      /**< exists already, from another source, or has dependants */
    BOUGH_E_BUSY = -6,          /**< another operation is under way; retry */
    BOUGH_E_UNSUPPORTED = -7,   /**< cannot be done here (file system, version, feature) */
    BOUGH_E_CORRUPT = -8,       /**< a file of the store is damaged */
    BOUGH_E_PG = -9,            /**< PostgreSQL reported an error */
    BOUGH_E_AUTH = -10,         /**< the API key is missing or wrong */
    BOUGH_E_UNREACHABLE = -11,  /**< the server or the source cannot be reached */
    BOUGH_E_TIMEOUT = -12,      /**< not done within the limit */
    BOUGH_E_CANCELLED = -13,    /**< interrupted by the user */
    BOUGH_E_NOSPACE = -14,      /**< the disk is full */
    BOUGH_E_PRECONDITION = -15, /**< the thing is not in a state that allows it */
    BOUGH_E_USAGE = -16,        /**< the command line is wrong */
    BOUGH_E_INTERNAL = -17      /**< a defect in Bough */
};

/** Details of a failure; owned by the caller, no destructor needed. */
typedef struct bough_error {
    int code;          /**< one of BOUGH_E_..., or BOUGH_OK */
    int sys_errno;     /**< errno where code is BOUGH_E_SYS or BOUGH_E_NOSPACE, else 0 */
    char message[512]; /**< lowercase, no full stop, names quoted */
    char hint[256];    /**< a sentence that says what to do; may be empty */
} bough_error;

/** What a code means to the outside. */
typedef struct bough_code_info {
    int code;
    const char *slug;     /**< stable identifier, e.g. "NOT_FOUND" */
    int http_status;      /**< status of an API answer */
    int exit_status;      /**< exit status of the command line */
    const char *sqlstate; /**< where a PostgreSQL client is answered */
} bough_code_info;

/**
 * Look a code up.
 *
 * @param code  One of BOUGH_OK, BOUGH_E_...; an unknown code is treated as BOUGH_E_INTERNAL.
 * @return      A static entry; never NULL.
 */
BOUGH_API const bough_code_info *bough_code_get(int code);

/**
 * Look up the code that a slug names.
 *
 * @return The code, or BOUGH_E_INTERNAL where no code has that slug.
 */
BOUGH_API int bough_code_from_slug(const char *slug);

#ifdef __cplusplus
}
#endif
#endif
