// State timelines are a plug-in of Grafana's that no package has: drawn here with its own display
// processors, so that words and colors are the ones Grafana would show.
import { FieldType } from '@grafana/data';

const AXIS = 22;
const ROOM = 8;

function blocks(values, times, end) {
  const found = [];
  values.forEach((value, index) => {
    const until = times[index + 1] ?? end;
    const last = found.at(-1);
    if (value === null || value === undefined) {
      found.push({ value: null, from: times[index], until });
    } else if (last && last.value === value) {
      last.until = until;
    } else {
      found.push({ value, from: times[index], until });
    }
  });
  return found.filter((block) => block.value !== null);
}

function rowsOf(frames, end) {
  return frames.flatMap((frame) => {
    const time = frame.fields.find((field) => field.type === FieldType.time);
    return frame.fields
      .filter((field) => field !== time)
      .map((field) => ({ field, blocks: blocks(field.values, time.values, end) }));
  });
}

export function Timeline({ panel, frames, width, height, range, theme }) {
  const rows = rowsOf(frames, range.to);
  const longest = Math.max(0, ...rows.map(({ field }) => field.state.displayName.length));
  const left = Math.min(width / 3, longest * 7 + 12);
  const legend = panel.options.legend?.showLegend ? 20 : 0;
  const band = (height - AXIS - legend) / Math.max(1, rows.length);
  const x = (at) => left + ((at - range.from) / (range.to - range.from)) * (width - left - ROOM);
  const words = new Map();
  const ticks = Array.from({ length: 7 }, (_, i) => range.from + (i * (range.to - range.from)) / 6);
  const text = { fontFamily: theme.typography.fontFamily, fontSize: 12 };
  return (
    <svg width={width} height={height}>
      {rows.map(({ field, blocks: found }, row) => (
        <g key={row}>
          <text
            x={left - 8}
            y={(row + 0.5) * band + 4}
            textAnchor="end"
            fill={theme.colors.text.primary}
            style={text}
          >
            {field.state.displayName}
          </text>
          {found.map((block, index) => {
            const shown = field.display(block.value);
            words.set(shown.text, shown.color);
            const [from, until] = [x(block.from), x(block.until)];
            const fits = shown.text.length * 6.6 < until - from;
            return (
              <g key={index}>
                <rect
                  x={from}
                  y={row * band + band * 0.06}
                  width={Math.max(1, until - from)}
                  height={band * 0.88}
                  fill={shown.color}
                  fillOpacity={0.85}
                />
                {panel.options.showValue !== 'never' && fits && (
                  <text x={from + 4} y={(row + 0.5) * band + 4} fill="#fff" style={text}>
                    {shown.text}
                  </text>
                )}
              </g>
            );
          })}
        </g>
      ))}
      {ticks.slice(1, -1).map((at) => (
        <text
          key={at}
          x={x(at)}
          y={rows.length * band + 15}
          textAnchor="middle"
          fill={theme.colors.text.secondary}
          style={text}
        >
          {new Date(at).toISOString().slice(11, 19)}
        </text>
      ))}
      {legend > 0 &&
        [...words].map(([word, color], index) => (
          <g key={word} transform={`translate(${8 + index * 110}, ${height - 6})`}>
            <rect y={-8} width={14} height={4} rx={2} fill={color} />
            <text x={20} y={-2} fill={theme.colors.text.primary} style={text}>
              {word}
            </text>
          </g>
        ))}
    </svg>
  );
}
