// The program of a container that stays.
#include <unistd.h>
int main(void) { for (;;) pause(); }
