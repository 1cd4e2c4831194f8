package metrics

import (
	"encoding/json"
	"slices"
	"strings"
)

// Board returns a board of Grafana's, as JSON to import: a panel for each metric of the table, and a table of the guests before them. Counters are
// shown as what comes in a minute, and those that make a mean as that, with the counter that they are divided by.
func Board() ([]byte, error) {
	type object = map[string]any
	source := object{"type": "prometheus", "uid": "${source}"}
	panels := []object{{
		"id": 1, "type": "table", "title": "guests", "datasource": source, "gridPos": object{"x": 0, "y": 0, "w": 24, "h": 6},
		"targets": []object{{"refId": "A", "expr": infoName, "format": "table", "instant": true}},
	}}
	const columns, width, height = 3, 8, 7
	shown := All()
	for _, m := range All() {
		shown = slices.DeleteFunc(shown, func(d Metric) bool { return d.Name == m.Per })
	}
	for i, m := range shown {
		const of = `{guest=~"$guest"}`
		expression := m.Name + of
		switch {
		case m.Per != "":
			expression = "rate(" + expression + "[5m]) / rate(" + m.Per + of + "[5m])"
		case m.Kind == counter:
			expression = "60 * rate(" + expression + "[5m])"
		}
		if m.Unit == moments {
			expression = "1000 * " + expression // Grafana's instants are milliseconds
		}
		panels = append(panels, object{
			"id": i + 2, "type": "timeseries", "title": strings.TrimPrefix(m.Name, prefix), "description": m.Help, "datasource": source,
			"gridPos":     object{"x": i % columns * width, "y": 6 + i/columns*height, "w": width, "h": height},
			"fieldConfig": object{"defaults": object{"unit": m.Unit, "min": 0}, "overrides": []object{}},
			"targets":     []object{{"refId": "A", "expr": expression, "legendFormat": "{{guest}}"}},
		})
	}
	return json.MarshalIndent(object{
		"title": "Chrysalis guests", "uid": "chrysalis-guests", "schemaVersion": 39, "editable": true, "refresh": "30s",
		"time":   object{"from": "now-6h", "to": "now"},
		"panels": panels,
		"templating": object{"list": []object{
			{"name": "source", "type": "datasource", "query": "prometheus", "label": "source"},
			{"name": "guest", "type": "query", "datasource": source, "query": "label_values(" + infoName + ", guest)", "multi": true, "includeAll": true, "refresh": 2},
		}},
	}, "", "  ")
}
