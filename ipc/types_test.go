package ipc

import (
	"errors"
	"testing"
	"unsafe"
)

type flat struct {
	A [3]struct {
		B uint8
		C [2]float64
	}
	D bool
	E uintptr
	F complex128
}

func refused[T any](t *testing.T, path, kind string) {
	t.Helper()
	err := CheckType[T]()
	var pointer *PointerError
	if !errors.As(err, &pointer) || pointer.Path != path || pointer.Kind != kind {
		t.Errorf("%v, want %s as a %s", err, path, kind)
	}
}

func TestTheorem_1_3_2_PointersAreRefused(t *testing.T) {
	if err := CheckType[flat](); err != nil {
		t.Error(err)
	}
	type inner struct {
		N int
		S []byte
	}
	type outer struct {
		A int
		B [4]struct{ C inner }
	}
	refused[outer](t, "outer.B[].C.S", "slice")
	refused[*int](t, "*int", "ptr")
	refused[string](t, "string", "string")
	refused[struct{ M map[int]int }](t, "struct { M map[int]int }.M", "map")
	refused[struct{ C chan int }](t, "struct { C chan int }.C", "chan")
	refused[struct{ F func() }](t, "struct { F func() }.F", "func")
	refused[struct{ I any }](t, "struct { I interface {} }.I", "interface")
	refused[struct{ P unsafe.Pointer }](t, "struct { P unsafe.Pointer }.P", "unsafe.Pointer")
	refused[[0]string](t, "[0]string[]", "string")
}
