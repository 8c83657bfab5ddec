package ipc

// MaxFDs is how many fds one message of an [FDSocket] can carry (SCM_MAX_FD). 28 make the cost of the message small.
const MaxFDs = 253
