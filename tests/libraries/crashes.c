/* A library for tests that ends its process in every possible way. */
#include <stdlib.h>

#include "alchemist_ali.h"

static int run_crash(alchemist_call *call)
{
    int *volatile nowhere = NULL;
    const char *how = alchemist_get_string(call, "how");
    if (call->rank == alchemist_get_int(call, "rank")) {
        if (strcmp(how, "segfault") == 0)
            *nowhere = 1;
        if (strcmp(how, "exit") == 0)
            exit(3);
        if (strcmp(how, "abort") == 0)
            abort();
        if (strcmp(how, "MPI_Abort") == 0)
            MPI_Abort(call->comm, 3);
        if (strcmp(how, "stack") == 0)
            return run_crash(call) + (int)strlen(how);
    }
    MPI_Barrier(call->comm);
    return ALCHEMIST_OK;
}

static const alchemist_parameter parameters[] = {
    {"how", ALCHEMIST_STRING, NULL, "", 0, NULL}, {"rank", ALCHEMIST_INT, "0", "", 0, NULL}, ALCHEMIST_END};
static const alchemist_task tasks[] = {{"crash", "Do not return.", parameters, NULL, run_crash}, ALCHEMIST_END};

ALCHEMIST_LIBRARY("", "", tasks, NULL)
