package main

// One heap for all threads of the C library: each of Go's threads would otherwise map, trim and touch its own when it
// starts, for nothing.

// #include <malloc.h>
// __attribute__((constructor)) static void one_heap(void) { mallopt(M_ARENA_MAX, 1); }
import "C"
