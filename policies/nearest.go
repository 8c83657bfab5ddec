package policies

import "strings"

// Nearest is the word among known that was probably meant, or "".
func Nearest(word string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if k == word {
			return ""
		}
		if d := editDistance(word, k); d < distance && d < len(k) && d < len(word) {
			best, distance = k, d
		}
	}
	if best == "" && len(word) > 3 { // pids for pids-limit
		for _, k := range known {
			if strings.HasPrefix(k, word+"-") {
				return k
			}
		}
	}
	return best
}

// editDistance counts the bytes that have to be added, removed, changed or swapped to get from a to b. Words that are
// much longer than any of ours are far from all of them.
func editDistance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	before, previous := []int{}, make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := 1; i <= len(a); i++ {
		current := make([]int, len(b)+1)
		current[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			current[j] = min(previous[j]+1, current[j-1]+1, previous[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				current[j] = min(current[j], before[j-2]+1)
			}
		}
		before, previous = previous, current
	}
	return previous[len(b)]
}
