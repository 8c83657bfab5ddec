/* What cgo sees of the generated assembly. */
#ifndef LAUNCH_H
#define LAUNCH_H
#include "src/plan.h"
int jail_launch(struct launch *l);
extern const char jail_init_start[], jail_init_end[], jail_init_entry[];
#endif
