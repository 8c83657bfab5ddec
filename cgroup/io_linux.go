package cgroup

import (
	"fmt"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func ioSettings(version int, r *specs.LinuxResources) ([]Setting, error) {
	b := r.BlockIO
	if b == nil {
		return nil, nil
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		return nil, unsupported("blockIO.leafWeight") // gone since Linux 5.0
	}
	var s []Setting
	add := func(file, value string) { s = append(s, Setting{"io", file, value}) }
	// On v1 weights exist with the scheduler BFQ alone; on v2 io.weight is there for every scheduler.
	file, weight := "blkio.bfq.weight", func(w uint16) string { return strconv.Itoa(int(w)) }
	if version == 2 {
		file, weight = "io.weight", func(w uint16) string { return strconv.Itoa(1 + (int(w)-10)*9999/990) }
	}
	if b.Weight != nil && *b.Weight != 0 {
		if err := checkWeight("blockIO.weight", *b.Weight); err != nil {
			return nil, err
		}
		add(file, weight(*b.Weight))
	}
	for i, d := range b.WeightDevice {
		key := "blockIO.weightDevice[" + strconv.Itoa(i) + "]"
		if d.LeafWeight != nil && *d.LeafWeight != 0 {
			return nil, unsupported(key + ".leafWeight")
		}
		if d.Weight == nil {
			return nil, invalid(key, "it has no weight")
		}
		if err := checkWeight(key+".weight", *d.Weight); err != nil {
			return nil, err
		}
		number, err := device(key, d.LinuxBlockIODevice)
		if err != nil {
			return nil, err
		}
		name := file
		if version == 1 {
			name = "blkio.bfq.weight_device"
		}
		add(name, number+" "+weight(*d.Weight))
	}
	for _, t := range []struct {
		key, v1, v2 string
		devices     []specs.LinuxThrottleDevice
	}{
		{"throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps", b.ThrottleReadBpsDevice},
		{"throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps", b.ThrottleWriteBpsDevice},
		{"throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops", b.ThrottleReadIOPSDevice},
		{"throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops", b.ThrottleWriteIOPSDevice},
	} {
		for i, d := range t.devices {
			key := "blockIO." + t.key + "[" + strconv.Itoa(i) + "]"
			number, err := device(key, d.LinuxBlockIODevice)
			if err != nil {
				return nil, err
			}
			if d.Rate == 0 {
				return nil, invalid(key+".rate", "0 is no rate: the kernel would take it for no limit")
			}
			rate := strconv.FormatUint(d.Rate, 10)
			if version == 2 {
				add("io.max", number+" "+t.v2+"="+rate)
			} else {
				add(t.v1, number+" "+rate)
			}
		}
	}
	return s, nil
}

func checkWeight(key string, w uint16) error {
	if w < 10 || w > 1000 {
		return invalid(key, fmt.Sprintf("%d is not from 10 to 1000", w))
	}
	return nil
}

func device(key string, d specs.LinuxBlockIODevice) (string, error) {
	// The kernel's dev_t has 12 bits for the one and 20 for the other.
	if d.Major < 0 || d.Major >= 1<<12 || d.Minor < 0 || d.Minor >= 1<<20 {
		return "", invalid(key, fmt.Sprintf("%d:%d is no device", d.Major, d.Minor))
	}
	return fmt.Sprintf("%d:%d", d.Major, d.Minor), nil
}
