#include "greeting.h"

#include <stdio.h>

const char *greeting(const char *name)
{
    static char text[256];

    snprintf(text, sizeof text, "Hello, %s!", name);
    return text;
}
