// Package cgroup makes control groups for jails, limits and reads them, kills what is in them and removes them; on
// cgroup v1, hybrid and v2, as root and as an ordinary user to whom a subtree was delegated.
//
// The way of a cgroup: Find says where one may be made, Place.Create makes it, Cgroup.Set limits it, Cgroup.Attach (or a
// clone with CLONE_INTO_CGROUP and Cgroup.FD) fills it, Cgroup.Usage reads it, Cgroup.Kill and Cgroup.Remove end it.
// Collect removes those whose owner was killed.
//
// Controllers are named as on v2 everywhere: "cpu", "cpuset", "io", "memory", "pids". On v1, "io" is the hierarchy
// blkio, "cpu" takes cpuacct along, and each jail has a cgroup in the freezer.
//
// Of github.com/containerd/cgroups only the root package is linked in: cgroup1 and cgroup2 register protobuf messages
// and open a way to D-Bus, which adds half a millisecond to every start of a program, jailed or not. The tests use them
// to check this package: they read what it made, and it reads what they made.
package cgroup
