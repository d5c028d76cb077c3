// The program of a container that only starts.
int main(void) { return 0; }
