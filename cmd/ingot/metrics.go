package main

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ingot-metal/ingot/storage"
)

// metricsHandler serves /metrics on a listener of its own: what is measured here is not for the API's clients.
func metricsHandler(db *storage.DB) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if db != nil {
		counter := func(name, help string, value func(storage.Stats) int64) {
			reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "ingot", Subsystem: "storage", Name: name, Help: help},
				func() float64 { return float64(value(db.Stats())) }))
		}
		counter("reads_total", "Read transactions.", func(s storage.Stats) int64 { return s.Reads })
		counter("writes_total", "Write transactions that were asked for.", func(s storage.Stats) int64 { return s.Writes })
		counter("commits_total", "Commits that the disk saw; fewer than writes where writers share one.", func(s storage.Stats) int64 { return s.Commits })
		counter("retries_total", "Write functions that ran again.", func(s storage.Stats) int64 { return s.Retries })
		counter("statements_total", "SQL statements.", func(s storage.Stats) int64 { return s.Statements })
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "ingot", Name: "build_info", Help: "1, labelled with the version.", ConstLabels: prometheus.Labels{"version": version}})
	info.Set(1)
	reg.MustRegister(info)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	return mux
}
