package node

import (
	"fmt"

	"balai/node/api"
)

// A file is a connection, too: when none is left, nobody new can be reached, and the system says so to nobody.
const (
	filesSpare = 16 // fewer than so many left is bad
	filesPart  = 8  // and so is less than one part in this of what is allowed
)

// filesFinding tells how near a process is to the most files it may have open; limit 0: not known here.
func filesFinding(open, limit uint64) (api.Finding, bool) {
	if limit == 0 {
		return api.Finding{}, false
	}
	left := limit - min(open, limit)
	if left >= filesSpare && left >= limit/filesPart {
		return finding("limits", "ok", "Open files and connections are within what the system allows", "", ""), true
	}
	return finding("limits", "warn", "Hardly any file may be opened any more",
		fmt.Sprintf("%d of %d are in use. Each connection over TCP is one: new people may not get through, and pages may not open.", min(open, limit), limit),
		"Allow more, such as with “ulimit -n 4096” before the start, or LimitNOFILE= in the service; or close what is not needed."), true
}
