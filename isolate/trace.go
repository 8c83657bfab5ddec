package isolate

// Trace is what a payload has used, as far as its system calls tell. Paths are those of the jail, without links.
type Trace struct {
	Calls     []string `json:"calls"`
	Read      []string `json:"read"`     // opened to be read, or looked at
	Written   []string `json:"written"`  // opened to be written to, or changed
	Changed   []string `json:"changed"`  // folders in which something was made, renamed or removed
	Executed  []string `json:"executed"` // programs and scripts
	Mapped    []string `json:"mapped"`   // libraries and interpreters: mapped to be executed
	Addresses []string `json:"addresses"`
	// Each capability of those that it had which a call needed, or may have needed where what was seen of the call does
	// not tell, with the first such call. "" is one of which no call tells, so that it may have been needed.
	Capabilities map[string]string `json:"capabilities"`
	Full         bool              `json:"full"` // there was more than could be kept
}
