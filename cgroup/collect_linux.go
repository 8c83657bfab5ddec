package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// Collect removes the cgroups of jails whose owners were killed, with what still runs in them, and returns the main
// folders of those. A folder is taken only if it is named like a jail's, bears the mark that jail sets, and nobody holds
// its lock. The marks that root set count for root alone, those of an ordinary user for that user.
func Collect() (removed []string, err error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	mounts, err := parseMounts(string(text))
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, m := range mounts {
		version := 1
		if m.v2 {
			version = 2
		} else if !slices.Contains(m.controllers, "freezer") { // where the main folders are
			continue
		}
		more, err := collect(version, m.point)
		removed, errs = append(removed, more...), append(errs, err)
	}
	return removed, errors.Join(errs...)
}

// collect does so below one folder.
func collect(version int, dir string) (removed []string, err error) {
	children, err := folders(dir)
	errs := []error{err}
	for _, child := range children {
		if strings.HasPrefix(path.Base(child), prefix) {
			dead, err := adopt(version, child)
			if err == nil {
				if err = dead.end(); err == nil {
					removed = append(removed, child)
				} else {
					errs = append(errs, fmt.Errorf("left-over of a jail: %w", err))
				}
				continue
			}
			if !errors.Is(err, ErrExists) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
				errs = append(errs, fmt.Errorf("left-over of a jail: %w", err))
			}
		}
		more, err := collect(version, child) // jails in jails
		removed, errs = append(removed, more...), append(errs, err)
	}
	return removed, errors.Join(errs...)
}
