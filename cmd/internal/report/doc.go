// Package report is how every bench command tells what it has measured: as
// tables for a terminal, as JSON, and as a page with plots. It also compares
// two reports.
//
// # JSON
//
// The JSON of a report is one object. Fields may be added to it; none is
// renamed, and none changes its meaning, under the same format number.
//
//	{
//	  "format": 1,
//	  "bench": "log",                    which bench: list, log, http, ...
//	  "command": "crdt-genome bench …",  as it was called
//	  "version": "0.1.0",                of the program
//	  "time": "2026-01-02T15:04:05Z",    when it began, UTC
//	  "machine": {"cpu": "…", "cores": 2, "os": "linux/amd64", "kernel": "…",
//	              "go": "go1.26", "governor": "…", "load": "0.35"},
//	  "runs": 5,                         how often each was to be measured
//	  "interrupted": true,               absent: it came to its end
//	  "rows": [{
//	    "kind": "time",                  rows of a kind share a table; may be absent
//	    "group": "append, alone",        what was done
//	    "name": "log, p99",              what was measured of it
//	    "unit": "µs",
//	    "values": [91, 88, 90],          one for each run, in their order
//	    "min": 88, "median": 90, "max": 91,
//	    "better": "less",                or "more"; absent: neither
//	    "baseline": true,                measured for comparison only
//	    "goal": 100,                     of the median; absent: none
//	    "verdict": "ok",                 or "missed"; absent without a goal
//	    "ops": 1000,                     that one run handles, where that says something
//	    "more": [{"name": "ns/op", "value": 12.5}]
//	  }],
//	  "before": {…},                     with --against: the other report without its rows
//	  "changes": [{                      with --against: what both have measured
//	    "group": "…", "name": "…", "unit": "…",
//	    "before": 95, "now": 90,         medians
//	    "ratio": 0.947,                  now / before; 0 if before is 0
//	    "spread": 0.017,                 half the range of the less steady one, as a part of its median
//	    "verdict": "better"              worse, changed, same, no clear difference, too few runs
//	  }]
//	}
//
// A row is found again in another report by its group, name and unit.
//
// # The page
//
// [Report.HTML] writes one file that asks nobody for anything: no script, no
// font, no image. Its plots are drawn by this package as inline SVG. It is
// readable from 400 pixels of width on, in light and dark.
package report
