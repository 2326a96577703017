#ifndef GREET_H
#define GREET_H

#include <stddef.h>

/* Write "<word>, <name>!" into text; return its length, or -1 if it does not fit. */
int greet(char *text, size_t size, const char *word, const char *name);

#endif
