// From Prometheus' answers to Grafana's data frames, as its data source does it.
import {
  fieldMatchers,
  FieldType,
  getDisplayProcessor,
  getFieldDisplayName,
  standardTransformers,
  standardTransformersRegistry,
  toDataFrame,
  transformDataFrame,
} from '@grafana/data';
import { firstValueFrom } from 'rxjs';

export function registerTransformers() {
  // Some are listed under an old name and a new one.
  const all = new Set(Object.values(standardTransformers).map((one) => one.id));
  const byId = (id) => Object.values(standardTransformers).find((one) => one.id === id);
  standardTransformersRegistry.setInit(() =>
    [...all].map((id) => ({ id, name: id, transformation: () => Promise.resolve(byId(id)) }))
  );
}

const legend = (target, labels) => {
  const { __name__, ...others } = labels;
  if (target.legendFormat && target.legendFormat !== '__auto') {
    return target.legendFormat.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name) => labels[name] ?? '');
  }
  const text = Object.entries(others).map(([key, value]) => `${key}="${value}"`);
  return Object.keys(others).length === 1 ? Object.values(others)[0] : `{${text.join(', ')}}`;
};

const number = (text) => (Number.isFinite(Number(text)) ? Number(text) : null);

// One frame per series; moments without a sample become nulls, so that gaps are drawn as gaps.
function seriesFrames(target, rows, times) {
  return rows.map((row) => {
    const samples = row.values ?? [row.value];
    const byTime = new Map(samples.map(([at, value]) => [at, number(value)]));
    const moments = row.values ? times : samples.map(([at]) => at);
    const name = legend(target, row.metric);
    return toDataFrame({
      refId: target.refId,
      name,
      fields: [
        { name: 'Time', type: FieldType.time, values: moments.map((at) => at * 1000) },
        {
          name: 'Value',
          type: FieldType.number,
          labels: row.metric,
          values: moments.map((at) => byTime.get(at) ?? null),
          config: { displayNameFromDS: name },
        },
      ],
    });
  });
}

function tableFrame(target, rows, several) {
  const labels = [...new Set(rows.flatMap((row) => Object.keys(row.metric)))].sort();
  const cells = rows.flatMap((row) =>
    (row.values ?? [row.value]).map(([at, value]) => ({ at, value, metric: row.metric }))
  );
  return toDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: cells.map((cell) => cell.at * 1000) },
      ...labels.map((label) => ({
        name: label,
        type: FieldType.string,
        values: cells.map((cell) => cell.metric[label] ?? ''),
      })),
      {
        name: several ? `Value #${target.refId}` : 'Value',
        type: FieldType.number,
        values: cells.map((cell) => number(cell.value)),
      },
    ],
  });
}

function applyConfig(panel, frames, theme) {
  const { defaults = {}, overrides = [] } = panel.fieldConfig ?? {};
  let seriesIndex = 0;
  for (const frame of frames) {
    for (const field of frame.fields) {
      const own = { ...field.config };
      field.config = { ...defaults, ...own, custom: { ...defaults.custom } };
      for (const { matcher, properties } of overrides) {
        const matches = fieldMatchers.get(matcher.id).get(matcher.options);
        if (!matches(field, frame, frames)) {
          continue;
        }
        for (const { id, value } of properties) {
          if (id.startsWith('custom.')) {
            field.config.custom[id.slice('custom.'.length)] = value;
          } else {
            field.config[id] = value;
          }
        }
      }
      if (field.type === FieldType.number) {
        field.config.color ??= { mode: 'palette-classic' };
        field.state = { ...field.state, seriesIndex: seriesIndex++ };
      }
      if (field.type === FieldType.time) {
        delete field.config.unit;
      }
      field.state = { ...field.state, displayName: field.config.displayName ?? undefined };
      field.state.displayName ??= getFieldDisplayName(field, frame, frames);
      field.display = getDisplayProcessor({ field, theme, timeZone: 'utc' });
      field.getLinks = () => [];
    }
  }
  return frames;
}

// Return the frames that the panel's component gets: converted, transformed, configured.
export async function framesOf(panel, times, theme) {
  const answered = panel.answers.filter(({ rows }) => rows.length > 0);
  const several = panel.answers.length > 1;
  const frames = answered.flatMap(({ target, rows }) =>
    target.format === 'table'
      ? [tableFrame(target, rows, several)]
      : seriesFrames(target, rows, times)
  );
  const context = { interpolate: (text) => text };
  const shaped = await firstValueFrom(
    transformDataFrame(panel.transformations ?? [], frames, context)
  );
  return applyConfig(panel, shaped, theme);
}
