#ifndef GREETING_H
#define GREETING_H

/* Return what to say to somebody; the text lives until the next call. */
const char *greeting(const char *name);

#endif
