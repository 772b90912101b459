// A vendor whose list of sales is long and always ready: pages made at the start, served from memory, so
// that a pull waits for nothing but itself.

import http from 'node:http';

const RECORDS = Number(process.env.RECORDS);
const PAGE = 500;

function sale(number) {
  const id = String(number).padStart(8, '0');
  const at = new Date(Date.now() - 86_400_000 + number).toISOString();
  return {
    sale_id: `P${id}`, order_no: `A${id}`, kind: 'sale', subtotal_fen: 16800, tax_fen: 951, discount_fen: 1000,
    total_fen: 15800, pay: 'alipay', phone: '13900139000', shop: 'shop-1', sold_at: at, updated_at: at,
    lines: [
      { name: '招牌牛肉面（大碗）', qty: 2, price_fen: 3200 },
      { name: '老坛酸菜鱼', qty: 1, price_fen: 5800 },
      { name: '凉拌黄瓜', qty: 2, price_fen: 1200 },
    ],
  };
}

const pages = [];
for (let first = 0; first < RECORDS; first += PAGE) {
  const items = Array.from({ length: Math.min(PAGE, RECORDS - first) }, (_, place) => sale(first + place));
  const next = first + PAGE < RECORDS ? String(first / PAGE + 1) : null;
  pages.push(Buffer.from(JSON.stringify({ code: 0, data: { items, next } })));
}

http.createServer((request, response) => {
  const cursor = new URL(request.url, 'http://vendor').searchParams.get('cursor');
  const page = pages[Number(cursor ?? 0)];
  response.writeHead(page ? 200 : 404, { 'Content-Type': 'application/json' });
  response.end(page ?? '{"code":404}');
}).listen(Number(process.env.PORT), '127.0.0.1');
