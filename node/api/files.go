package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// ErrExposed refuses a token that others than its owner may read. The error says what to do.
var ErrExposed = errors.New("the file can be read by others")

// The files in the data folder.
const (
	addressFile = "api.json"
	tokenFile   = "token"

	privateMode = 0o600
	folderMode  = 0o700
	othersBits  = 0o077
	maxFile     = 4096
)

// address is what api.json holds.
type address struct {
	URL   string `json:"url"`
	Token string `json:"token"`
}

// WriteFile tells programs of this person where the API is and how to get in: it writes api.json, mode 0600, whole or
// not at all.
func WriteFile(dir, url, token string) error {
	data, err := json.Marshal(address{URL: url, Token: token})
	if err != nil {
		return err
	}
	return writePrivate(filepath.Join(dir, addressFile), append(data, '\n'))
}

// LoadOrCreateToken is the bearer token of the daemon with this data folder, made on the first call. A file that
// others can read is refused with ErrExposed, one that holds no token with an error that says so.
func LoadOrCreateToken(dir string) (string, error) {
	path := filepath.Join(dir, tokenFile)
	data, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		token := newSecret()
		return token, writePrivate(path, []byte(token+"\n"))
	}
	if err != nil {
		return "", err
	}
	token, ok := parseToken(data)
	if !ok {
		return "", fmt.Errorf("%s does not hold a token: move it away, a new one is made then", path)
	}
	return token, nil
}

// parseToken reads 43 characters of base64url and at most one line feed.
func parseToken(data []byte) (string, bool) {
	if n := len(data); n > 0 && data[n-1] == '\n' {
		data = data[:n-1]
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(string(data))
	return string(data), err == nil && len(b) == secret && !bytes.ContainsAny(data, "\r\n") // which the decoder skips
}

// readPrivate reads a small regular file that nobody but its owner may touch. Windows has no such mode bits; there
// the folder of the user's profile protects the file.
func readPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&othersBits != 0 {
		return nil, fmt.Errorf("%s has mode %04o: %w; who has read it may act as you: remove it and start the daemon again, which makes a new one, or, if nobody else was on this machine: chmod 600 %s",
			path, info.Mode().Perm(), ErrExposed, path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is too long", path)
	}
	return data, err
}

// writePrivate puts data at path whole or not at all, readable by its owner alone from the first byte on.
func writePrivate(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, folderMode); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".tmp-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(privateMode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
