package ipc

import (
	"fmt"
	"reflect"
)

// PointerError refuses a type for shared memory: what is an address in one process is garbage in another, or an attack.
type PointerError struct {
	Path string // of the field, from the type on: "Frame.Header.Name"; [] for the elements of an array
	Kind string // what it is: "string", "map"
}

func (e *PointerError) Error() string {
	return fmt.Sprintf("ipc: %s is a %s, and only types without pointers can be shared between processes", e.Path, e.Kind)
}

// CheckType returns a [*PointerError] for the first field of T, depth first, that is or holds a pointer. A uintptr is a
// number and passes. It costs a walk over the type, so callers do it once for an object and not for each message.
func CheckType[T any]() error {
	t := reflect.TypeFor[T]()
	name := t.Name()
	if name == "" {
		name = t.String()
	}
	return checkType(t, name)
}

func checkType(t reflect.Type, path string) error {
	switch t.Kind() {
	case reflect.Array:
		return checkType(t.Elem(), path+"[]")
	case reflect.Struct:
		for field := range t.Fields() {
			if err := checkType(field.Type, path+"."+field.Name); err != nil {
				return err
			}
		}
		return nil
	case reflect.Chan, reflect.Func, reflect.Interface, reflect.Map, reflect.Pointer, reflect.Slice, reflect.String, reflect.UnsafePointer:
		return &PointerError{Path: path, Kind: t.Kind().String()}
	default:
		return nil
	}
}
