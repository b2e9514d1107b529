package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"text/tabwriter"
)

// figure is one line of the table. A figure with a baseline is judged by its ratio to it, any other by its value; lower
// is better throughout. What is nil does not exist.
type figure struct {
	Name     string   `json:"name"`
	Value    float64  `json:"value"`
	Unit     string   `json:"unit"`
	Baseline *float64 `json:"baseline"`
	Ratio    *float64 `json:"ratio"`
	Goal     *float64 `json:"goal"`
	Aim      *float64 `json:"aim"`
	OK       *bool    `json:"ok"`
}

func plain(name string, value float64, unit string) figure {
	return figure{Name: name, Value: value, Unit: unit}
}

// against compares two series that were taken in turn: medians of both, and the median of the ratios of each turn.
func against(name string, ours, baseline []float64, unit string) figure {
	ratios := make([]float64, len(ours))
	for i := range ours {
		ratios[i] = ours[i] / baseline[i]
	}
	b, r := median(baseline), median(ratios)
	return figure{Name: name, Value: median(ours), Unit: unit, Baseline: &b, Ratio: &r}
}

// gate judges a figure.
func (f figure) gate(goal, aim float64) figure {
	judged := f.Value
	if f.Ratio != nil {
		judged = *f.Ratio
	}
	ok := judged <= goal
	f.Goal, f.Aim, f.OK = &goal, &aim, &ok
	return f
}

func median(v []float64) float64 { return quantile(v, 0.5) }

// quantile interpolates between neighbours; NaN for nothing.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(v))
	at := q * float64(len(s)-1)
	low := int(at)
	high := min(low+1, len(s)-1)
	return s[low] + (s[high]-s[low])*(at-float64(low))
}

func printTable(w io.Writer, all []figure) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "name\tvalue\tunit\tbaseline\tratio\tgoal\tok")
	for _, f := range all {
		ok := "-"
		if f.OK != nil {
			ok = map[bool]string{true: "yes", false: "NO"}[*f.OK]
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", f.Name, short(&f.Value), f.Unit, short(f.Baseline), short(f.Ratio), short(f.Goal), ok)
	}
	_ = t.Flush() // standard output: nobody to tell
}

// short is a number to three digits, more before the point.
func short(v *float64) string {
	switch {
	case v == nil:
		return "-"
	case math.Abs(*v) >= 100:
		return strconv.FormatFloat(*v, 'f', 0, 64)
	}
	return strconv.FormatFloat(*v, 'g', 3, 64)
}

func writeJSON(path string, all []figure) error {
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
