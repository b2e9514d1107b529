package node

import (
	"os"
	"syscall"
)

// openFiles counts the files that this process has open, and how many it may have. 0, 0: not known.
func openFiles() (open, limit uint64) {
	var r syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) != nil {
		return 0, 0
	}
	d, err := os.Open("/proc/self/fd")
	if err != nil { // most likely there is none left for this, either
		return r.Cur, r.Cur
	}
	defer d.Close() //nolint:errcheck // read only
	if st, err := d.Stat(); err == nil && st.Size() > 0 {
		return uint64(st.Size() - 1), r.Cur // Linux 6.2 counts them itself; one is d
	}
	names, err := d.Readdirnames(-1)
	if err != nil || len(names) == 0 {
		return 0, 0
	}
	return uint64(len(names) - 1), r.Cur // one is d
}
