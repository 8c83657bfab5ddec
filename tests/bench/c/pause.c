// The payload of the memory figures: waits for a signal.
#include <unistd.h>

int main(void) {
	for (;;)
		pause();
}
