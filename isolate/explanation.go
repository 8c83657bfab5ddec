package isolate

// Explanation is a run under the four headings of a policy.
type Explanation struct {
	Level        Level    `json:"level"`
	Permissions  []string `json:"permissions"`   // what the payload is given
	Borders      []string `json:"borders"`       // what holds it
	Monitored    []string `json:"monitored"`     // what is watched and reported
	EscapeRoutes []string `json:"escape_routes"` // what is known to stay open, at this level on this host
	Plan         *Plan    `json:"plan"`
}

// LevelReport says whether this host gives a level.
type LevelReport struct {
	Level Level
	Err   error // nil: it works; else the first step that did not
}
