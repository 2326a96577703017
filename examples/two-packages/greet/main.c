#include <greet.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    char text[80];

    if (argc != 3 || greet(text, sizeof text, argv[1], argv[2]) < 0) {
        fprintf(stderr, "usage: greet WORD NAME\n");
        return 2;
    }
    puts(text);
    return 0;
}
