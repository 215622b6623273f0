// Draws a dashboard's panels with Grafana's components from answers that were recorded.
import { createTheme, dateTime, FieldType, ThemeContext } from '@grafana/data';
import { initPluginTranslations } from '@grafana/i18n';
import { BarGauge, BigValue, GlobalStyles, PanelChrome, TimeSeries } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import { createRoot } from 'react-dom/client';
import { framesOf, registerTransformers } from './frames.js';
import { Timeline } from './timeline.jsx';

const CELL = 30;
const GAP = 8;

function lastOf(frame) {
  const field = frame.fields.find((one) => one.type === FieldType.number);
  const values = field.values.filter((value) => value !== null);
  return { field, shown: { ...field.display(values.at(-1)), title: field.state.displayName } };
}

function Stat({ panel, frames, width, height, theme }) {
  const { shown } = lastOf(frames[0]);
  const value = panel.options.textMode === 'name' ? shown : { ...shown, title: undefined };
  return <BigValue {...panel.options} {...{ width, height, theme, value }} />;
}

function Bars({ panel, frames, width, height, theme }) {
  const each = Math.min(40, height / frames.length - 6);
  const top = Math.max(1, ...frames.map((frame) => lastOf(frame).shown.numeric));
  const titles = Math.max(...frames.map((frame) => lastOf(frame).shown.title.length));
  const alignmentFactors = { title: 'm'.repeat(titles), text: '100 %' };
  return frames.map((frame, index) => {
    const { field, shown } = lastOf(frame);
    const config = { max: top, ...field.config };
    return (
      <div key={index} style={{ marginBottom: 6 }}>
        <BarGauge
          {...panel.options}
          {...{ width, theme, alignmentFactors, field: config, display: field.display }}
          height={each}
          value={shown}
        />
      </div>
    );
  });
}

const isoRange = ({ from, to }) => {
  const [start, end] = [dateTime(from), dateTime(to)];
  return { from: start, to: end, raw: { from: start, to: end } };
};

function Content(props) {
  const { panel, frames, width, height, range } = props;
  if (frames.length === 0) {
    const { noValue = 'No data' } = panel.fieldConfig.defaults;
    return <div style={{ padding: 8 }}>{noValue}</div>;
  }
  switch (panel.type) {
    case 'stat':
      return <Stat {...props} />;
    case 'bargauge':
      return <Bars {...props} />;
    case 'state-timeline':
      return <Timeline {...props} />;
    case 'table':
      return (
        <TableNG
          data={frames[0]}
          {...{ width, height }}
          cellHeight={panel.options.cellHeight}
          sortBy={panel.options.sortBy}
          enableVirtualization={false}
          timeRange={isoRange(range)}
        />
      );
    default:
      return (
        <TimeSeries
          {...{ frames, width, height }}
          timeRange={isoRange(range)}
          timeZone="utc"
          legend={panel.options.legend}
          options={panel.options}
        />
      );
  }
}

function Dashboard({ data, drawn, theme }) {
  const column = data.width / 24;
  const bottom = Math.max(...data.panels.map(({ gridPos: at }) => at.y + at.h));
  const background = theme.colors.background.canvas;
  const size = { position: 'relative', width: data.width, height: bottom * (CELL + GAP) + GAP };
  return (
    <div id="board" style={{ ...size, background, color: theme.colors.text.primary }}>
      {data.panels.map((panel) => {
        const { x, y, w, h } = panel.gridPos;
        const width = w * column - GAP;
        const height = h * (CELL + GAP) - GAP;
        const place = { position: 'absolute', left: x * column + GAP / 2, top: y * (CELL + GAP) };
        if (panel.type === 'row') {
          const line = { ...place, paddingTop: GAP, fontSize: 18, fontWeight: 500 };
          return (
            <div key={panel.key} style={line}>
              {panel.title}
            </div>
          );
        }
        return (
          <div key={panel.key} style={{ ...place, width, height }}>
            <PanelChrome title={panel.title} {...{ width, height }}>
              {(innerWidth, innerHeight) => (
                <Content
                  {...{ panel, theme, range: data.range, frames: drawn.get(panel.key) }}
                  width={innerWidth}
                  height={innerHeight}
                />
              )}
            </PanelChrome>
          </div>
        );
      })}
    </div>
  );
}

async function main() {
  await initPluginTranslations('grafana');
  registerTransformers();
  const data = window.board;
  const theme = createTheme({ colors: { mode: data.dark ? 'dark' : 'light' } });
  const drawn = new Map();
  for (const panel of data.panels) {
    if (panel.type !== 'row') {
      drawn.set(panel.key, await framesOf(panel, data.times, theme));
    }
  }
  createRoot(document.getElementById('root')).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <Dashboard {...{ data, drawn, theme }} />
    </ThemeContext.Provider>
  );
}

main();
