package cgroup

// ValidName says whether a jail can be called that: a letter or digit, then letters, digits, ".", "_" and "-", 64 at
// most. Not a regular expression: every start of a program would compile it.
func ValidName(name string) bool {
	for i, c := range []byte(name) {
		alphanumeric := 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9'
		if !alphanumeric && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return 0 < len(name) && len(name) <= 64
}
