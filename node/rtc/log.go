package rtc

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/pion/logging"
)

// pionLogs sends pion's log to ours, all of it at debug level: its warnings are our peer's habits. Trace is left out.
type pionLogs struct{ log *slog.Logger }

func (p pionLogs) NewLogger(scope string) logging.LeveledLogger {
	return pionLog{p.log.With("pion", scope)}
}

type pionLog struct{ log *slog.Logger }

func (l pionLog) on() bool { return l.log.Enabled(context.Background(), slog.LevelDebug) }

func (l pionLog) say(msg string) {
	if l.on() {
		l.log.Debug(msg)
	}
}

func (l pionLog) sayf(format string, args ...any) {
	if l.on() {
		l.log.Debug(fmt.Sprintf(format, args...))
	}
}

func (l pionLog) Trace(string)                 {}
func (l pionLog) Tracef(string, ...any)        {}
func (l pionLog) Debug(string)                 {}
func (l pionLog) Debugf(string, ...any)        {}
func (l pionLog) Info(msg string)              { l.say(msg) }
func (l pionLog) Infof(f string, args ...any)  { l.sayf(f, args...) }
func (l pionLog) Warn(msg string)              { l.say(msg) }
func (l pionLog) Warnf(f string, args ...any)  { l.sayf(f, args...) }
func (l pionLog) Error(msg string)             { l.say(msg) }
func (l pionLog) Errorf(f string, args ...any) { l.sayf(f, args...) }
