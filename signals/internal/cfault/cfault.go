// Package cfault makes a fault in C, which Go can't recover from. It is for tests of package signals.
package cfault

/*
static void fault(void) { *(volatile int *)0 = 1; }
*/
import "C"

// Fault writes to address 0.
func Fault() {
	C.fault()
}
