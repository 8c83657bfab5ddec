#ifndef ORIGIN_H
#define ORIGIN_H
#include <stdint.h>
struct jail_origin {
	uint64_t ignored, mask; /* bit n-1 is signal n */
	uint64_t nofile_soft, nofile_hard;
};
extern struct jail_origin jail_origin;
#endif
