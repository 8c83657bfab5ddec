#include "textflag.h"

// func relax(n int)
TEXT ·relax(SB), NOSPLIT, $0-8
	MOVQ n+0(FP), CX

again:
	PAUSE
	DECQ CX
	JNZ  again
	RET
