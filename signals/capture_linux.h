#ifndef SIGNALS_CAPTURE_LINUX_H
#define SIGNALS_CAPTURE_LINUX_H

#include <stdint.h>

// Bit n-1 of a set stands for signal n, as in the kernel's sets. There are 31 standard signals, so a
// word holds two sets of them: sent by somebody (low half), sent for the terminal (high half).
#define SIGNALS_TERMINAL_SHIFT 32

// signals_keep_ignored ignores again what was ignored at start and got a handler from the Go runtime.
void signals_keep_ignored(void);

// signals_install lets every relayed standard signal set its bit and write a byte to wake_fd, which
// must not block.
void signals_install(int wake_fd);

// signals_restore puts back the handlers that signals_install replaced. When it returns, nothing writes
// to wake_fd any more.
void signals_restore(void);

// signals_take returns the bits that were set since the last call and clears them.
uint64_t signals_take(void);

// signals_queue returns a signalfd of the signals that wait in the kernel, or -1 with errno.
int signals_queue(void);

// signals_jobs returns a signalfd of SIGTSTP and SIGCONT, or -1 with errno. It is for poll alone: what is
// read can't be taken back any more.
int signals_jobs(void);

// signals_pending_job returns SIGTSTP, SIGCONT or 0.
int signals_pending_job(void);

// signals_stop stops the process if SIGTSTP is pending still, and returns when it runs again.
void signals_stop(void);

// signals_take_cont takes SIGCONT from what is pending. It returns -1 if it is not, 1 if it was sent for
// the terminal, else 0.
int signals_take_cont(void);

// signals_unblock gives the signals that wait in the kernel their default action.
void signals_unblock(void);

#endif
